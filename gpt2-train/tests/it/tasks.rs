//! Scores on tasks during a run.

use crate::ranks::alike;
use crate::tiny::{Remains, Workshop, newest_checkpoint, records, run_of, train};
use gpt2_backend::{BackendChoice, Chosen};
use gpt2_data::SplitMix64;
use gpt2_eval::tasks::multiple_choice::ChoiceExample;
use gpt2_eval::{Evaluation, Results, TaskFile, formats};
use gpt2_model::Precision;
use gpt2_model::weights::load_config;
use gpt2_train::config::RunConfig;
use std::fs;
use std::path::Path;

const EXAMPLES: usize = 7;

/// Files of both tasks.
fn write_tasks(dir: &Path) -> [TaskFile; 2] {
    let mut rng = SplitMix64::new(7);
    let mut tokens = |count: u64| -> Vec<u16> { (0..count).map(|_| (rng.next_u64() % 50_000) as u16).collect() };
    let examples: Vec<ChoiceExample> = (0..EXAMPLES)
        .map(|index| ChoiceExample {
            index,
            context: tokens(3 + index as u64),
            endings: (1..5).map(&mut tokens).collect(),
            label: index % 4,
        })
        .collect();
    let [choices, words] = ["choices.bin", "words.jsonl"].map(|name| dir.join(name));
    formats::llmc::write(&choices, &examples).unwrap();
    let lines = ["It was a dark and stormy night", "two words", "Call me Ishmael"]
        .map(|text| format!("{{\"text\": {text:?}}}\n"));
    fs::write(&words, lines.concat()).unwrap();
    [TaskFile::Hellaswag(choices), TaskFile::Lambada(words)]
}

#[test]
fn scores_are_those_of_an_evaluation_whatever_the_ranks() {
    let workshop = Workshop::new();
    let files = write_tasks(&workshop.data());
    let with_tasks = |name: &str, grad_accum| RunConfig {
        hellaswag: Some(files[0].path().to_owned()),
        lambada: Some(files[1].path().to_owned()),
        tasks_every: Some(4),
        grad_accum: Some(grad_accum),
        ..workshop.config(name)
    };
    let alone = with_tasks("alone", 2);
    train(&alone).unwrap();
    let together = with_tasks("together", 1);
    alike(2, false, &together);
    let [alone, together] = [alone, together].map(|config| run_of(&config));
    let scored: Vec<_> = records(&alone)
        .into_iter()
        .filter(|record| !record.scores.is_empty())
        .collect();
    // At the start, at the interval and at the end.
    assert_eq!(scored.iter().map(|record| record.step).collect::<Vec<_>>(), [0, 4, 6]);
    let of_ranks: Vec<_> = records(&together).into_iter().map(|record| record.scores).collect();
    let of_one: Vec<_> = records(&alone).into_iter().map(|record| record.scores).collect();
    assert_eq!(of_ranks, of_one);

    let checkpoint = newest_checkpoint(&alone);
    let config = load_config(&checkpoint).unwrap();
    let tasks = files.map(|file| file.read(None, &config).unwrap());
    let evaluation = Evaluation {
        weights: &checkpoint,
        precision: Precision::F32,
        batch: 2,
    };
    let chosen = Chosen::decide(BackendChoice::Ndarray, 0).unwrap();
    let results = evaluation.run(&tasks, &chosen, &mut gpt2_eval::Silent).unwrap();
    let [choices, words] = results.try_into().unwrap();
    let (Results::MultipleChoice(choices, _), Results::LastWord(words, _)) = (choices.results, words.results) else {
        panic!("one of each");
    };
    let scores = &scored[2].scores;
    assert_eq!(choices.examples, EXAMPLES);
    let expected = [
        ("hellaswag.acc", choices.acc),
        ("hellaswag.acc_norm", choices.acc_norm),
        ("lambada.acc", words.acc),
        ("lambada.perplexity", words.perplexity),
    ];
    assert_eq!(scores.len(), expected.len());
    for (name, score) in expected {
        assert!(
            (scores[name] - score).abs() <= 1e-5 * score.abs(),
            "{name}: {} {score}",
            scores[name]
        );
    }

    // They change nothing of the training.
    let plain = RunConfig {
        grad_accum: Some(2),
        ..workshop.config("plain")
    };
    train(&plain).unwrap();
    assert!(Remains::of(&run_of(&plain)) == Remains::of(&alone));
}

#[test]
fn a_file_of_another_kind_is_refused_before_anything_is_written() {
    let workshop = Workshop::new();
    let config = RunConfig {
        hellaswag: Some(workshop.data().join("train_000000.bin")),
        ..workshop.config("refused")
    };
    let message = train(&config).unwrap_err().to_string();
    assert!(
        message.contains("is the magic number 20240520 of a token shard"),
        "{message}"
    );
    assert!(!workshop.run("refused").root().exists());
}
