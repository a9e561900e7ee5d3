//! The scores of a small GPT-2, example by example, against Hugging Face transformers on PyTorch (float32, CPU).
//! `fixtures/evaluation.py` says how the values were made.

use crate::golden::model;
use burn::tensor::backend::AutodiffBackend;
use gpt2_eval::tasks::last_word::LastWordExample;
use gpt2_eval::{Results, Silent, Task, TaskWork, evaluate, formats};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use serde_json::Value;

const EXAMPLES: &[u8] = include_bytes!("../fixtures/tiny/evaluation.bin");
const EXPECTED: &str = include_str!("../fixtures/tiny/evaluation.json");

/// The expected scores of a task.
fn expected(task: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(EXPECTED).unwrap();
    golden[task].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

fn tokens(value: &Value) -> Vec<u16> {
    numbers(value).into_iter().map(|token| token as u16).collect()
}

/// How far the loss of a token may be off, in nats, where a backend may have a relative error: losses are about 6.
fn allowed(relative: f64) -> f64 {
    if relative <= 1e-4 { 1e-4 } else { 6.0 * relative }
}

fn score<B: Gpt2Backend>(work: TaskWork, batch: usize, device: &B::Device) -> Results {
    let name = "golden".to_owned();
    evaluate(&model::<B>(device), &Task { name, work }, batch, &mut Silent)
        .unwrap()
        .results
}

mod multiple_choice {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluation.bin");
        std::fs::write(&path, EXAMPLES).unwrap();
        let examples = formats::llmc::read(&path).unwrap();
        // What a Python program wrote as llm.c does is written the same.
        formats::llmc::write(&path, &examples).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), EXAMPLES);

        let expected = expected("multiple_choice");
        for batch in [1, 7, 64] {
            let work = TaskWork::MultipleChoice(examples.clone());
            let Results::MultipleChoice(summary, scores) = score::<B::InnerBackend>(work, batch, device) else {
                panic!("another task's results");
            };
            assert_eq!(scores.len(), expected.len());
            for (score, expected) in scores.iter().zip(&expected) {
                let endings = expected["losses"].as_array().unwrap();
                for (ending, losses) in endings.iter().map(numbers).enumerate() {
                    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
                    let error = (score.loss_mean[ending] - mean).abs();
                    let error_of_sum = (score.loss_sum[ending] - mean * losses.len() as f64).abs();
                    assert!(error <= allowed(tolerance), "batch {batch}: {error:.2e} in {score:?}");
                    assert!(
                        error_of_sum <= allowed(tolerance) * losses.len() as f64,
                        "{error_of_sum:.2e}"
                    );
                }
                assert_eq!(score.prediction as u64, expected["prediction"].as_u64().unwrap());
                assert_eq!(
                    score.prediction_norm as u64,
                    expected["prediction_norm"].as_u64().unwrap()
                );
            }
            assert_eq!((summary.examples, summary.truncated), (16, 2));
            let right = scores
                .iter()
                .filter(|score| score.prediction_norm == score.label)
                .count();
            assert!((summary.acc_norm - right as f64 / 16.0).abs() < 1e-12);
        }
    }

    crate::on_every_backend!(check);
}

mod last_word {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let expected = expected("last_word");
        let examples: Vec<LastWordExample> = expected
            .iter()
            .map(|example| LastWordExample {
                context: tokens(&example["context"]),
                word: tokens(&example["word"]),
            })
            .collect();
        for batch in [1, 5, 64] {
            let work = TaskWork::LastWord(examples.clone());
            let Results::LastWord(summary, scores) = score::<B::InnerBackend>(work, batch, device) else {
                panic!("another task's results");
            };
            assert_eq!(scores.len(), expected.len());
            for (score, expected) in scores.iter().zip(&expected) {
                let losses = numbers(&expected["losses"]);
                let error = (score.loss_sum - losses.iter().sum::<f64>()).abs() / losses.len() as f64;
                assert!(error <= allowed(tolerance), "batch {batch}: {error:.2e} in {score:?}");
                let predictions: Vec<f64> = score.predictions.iter().copied().map(f64::from).collect();
                assert_eq!(predictions, numbers(&expected["predictions"]), "batch {batch}");
                assert_eq!(Value::Bool(score.correct), expected["correct"]);
            }
            assert_eq!((summary.examples, summary.acc), (12, 0.5));
        }
    }

    crate::on_every_backend!(check);
}

/// A classifier of its own is the one that predicts: both ways to a loss agree.
mod untied {
    use super::*;
    use gpt2_model::{Gpt2Config, Inference, Sequences, Variant};

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let config = Gpt2Config {
            vocab_size: 301,
            block_size: 32,
            n_layer: 2,
            n_head: 2,
            n_embd: 128,
            dropout: 0.0,
            variant: Variant {
                tie_word_embeddings: false,
                ..Variant::default()
            },
        };
        let model: &dyn Inference = &config.init::<B::InnerBackend>(3, device).unwrap();
        let tokens = |shift| (0..64).map(|token| (token * 7 + shift) % 301).collect();
        let batch = Sequences {
            inputs: tokens(0),
            targets: tokens(7),
            seq: 32,
        };
        let losses = model.token_losses(batch.clone());
        let positions = [0, 5, 31, 32, 63];
        for (&position, score) in positions.iter().zip(model.token_scores(batch, &positions)) {
            let error = f64::from((score.loss - losses[position]).abs());
            assert!(error <= allowed(tolerance), "position {position}: {error:.2e}");
        }
    }

    crate::on_every_backend!(check);
}
