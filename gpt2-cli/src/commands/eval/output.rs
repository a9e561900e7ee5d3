//! The results of an evaluation: the table, the JSON file, and the file of examples.

use super::Source;
use crate::error::CliError;
use crate::printer::table;
use crate::version;
use gpt2_backend::Chosen;
use gpt2_base::units::grouped;
use gpt2_eval::{Evaluation, Results, Summary, TaskResults};
use serde::Serialize;
use std::path::Path;

/// All that is known of an evaluation.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) evaluation: &'a Evaluation<'a>,
    pub(super) chosen: &'a Chosen,
    pub(super) sources: &'a [Source<'a>],
    pub(super) results: &'a [TaskResults],
    /// With the loading of the weights.
    pub(super) seconds: f64,
}

/// The JSON file.
#[derive(Serialize)]
struct File<'a> {
    program: String,
    git_commit: Option<&'static str>,
    weights: String,
    backend: &'static str,
    device: &'a str,
    precision: String,
    batch: usize,
    seconds: f64,
    results: Vec<FileResults<'a>>,
}

#[derive(Serialize)]
struct FileResults<'a> {
    task: &'a str,
    source: String,
    #[serde(flatten)]
    summary: Summary<'a>,
}

/// A line of the file of examples.
#[derive(Serialize)]
struct Line<'a, S> {
    task: &'a str,
    /// Its place in the file, from 0; of the loss, the window.
    example: usize,
    #[serde(flatten)]
    score: &'a S,
}

/// Writes the results. The file is whole or as it was.
pub(super) fn write_report(path: &Path, report: &Report) -> Result<(), CliError> {
    let results = report.results.iter().zip(report.sources);
    let file = File {
        program: version::program(),
        git_commit: version::commit(),
        weights: report.evaluation.weights.display().to_string(),
        backend: report.chosen.backend.as_str(),
        device: &report.chosen.device.name,
        precision: report.evaluation.precision.to_string(),
        batch: report.evaluation.batch,
        seconds: report.seconds,
        results: results
            .map(|(results, source)| FileResults {
                task: &results.name,
                source: source.path.display().to_string(),
                summary: results.results.summary(),
            })
            .collect(),
    };
    let mut text = serde_json::to_vec_pretty(&file).map_err(|error| failed(path, error.into()))?;
    text.push(b'\n');
    gpt2_base::fs::write(path, &text).map_err(|source| failed(path, source))
}

/// Writes the scores of all examples, a line each. The file is whole or as it was.
pub(super) fn write_per_example(path: &Path, results: &[TaskResults]) -> Result<(), CliError> {
    let mut text = Vec::new();
    for TaskResults { name, results } in results {
        match results {
            Results::Loss(_, scores) => lines(name, scores, &mut text),
            Results::MultipleChoice(_, scores) => lines(name, scores, &mut text),
            Results::LastWord(_, scores) => lines(name, scores, &mut text),
        }
        .map_err(|error| failed(path, error.into()))?;
    }
    gpt2_base::fs::write(path, &text).map_err(|source| failed(path, source))
}

fn lines<S: Serialize>(task: &str, scores: &[S], text: &mut Vec<u8>) -> serde_json::Result<()> {
    for (example, score) in scores.iter().enumerate() {
        serde_json::to_writer(&mut *text, &Line { task, example, score })?;
        text.push(b'\n');
    }
    Ok(())
}

fn failed(path: &Path, source: std::io::Error) -> CliError {
    CliError::Write {
        path: path.to_path_buf(),
        source,
    }
}

/// Refuses a file that could not be written, before hours are spent on what it is to hold.
pub(super) fn check_writable(flag: &'static str, path: &Path) -> Result<(), CliError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let is_in_a_directory = parent.is_none_or(Path::is_dir);
    if is_in_a_directory && !path.is_dir() && path.file_name().is_some() {
        return Ok(());
    }
    Err(CliError::InvalidFlag {
        flag,
        value: path.display().to_string(),
        expected: "a file in a directory that exists".to_owned(),
    })
}

/// The results for people.
pub(super) fn table_of(results: &[TaskResults]) -> String {
    let rows = results.iter().flat_map(|TaskResults { name, results }| {
        let of = counted(results);
        measures(results).into_iter().map(move |measure| {
            let error = measure.standard_error.map(|error| format!("{error:.4}"));
            let name = name.clone();
            [
                name,
                measure.name.to_owned(),
                measure.value,
                error.unwrap_or_default(),
                of.clone(),
            ]
        })
    });
    table(["task", "measure", "value", "standard error", "of"], rows.collect(), 2)
}

/// A line of the table.
struct Measure {
    name: &'static str,
    value: String,
    standard_error: Option<f64>,
}

impl Measure {
    fn new(name: &'static str, value: String) -> Self {
        Self {
            name,
            value,
            standard_error: None,
        }
    }

    fn share(name: &'static str, value: f64, standard_error: Option<f64>) -> Self {
        Self {
            standard_error,
            ..Self::new(name, format!("{value:.4}"))
        }
    }
}

fn measures(results: &Results) -> Vec<Measure> {
    let perplexity = |name, value: f64| Measure::new(name, format!("{value:.3}"));
    match results {
        Results::Loss(summary, _) => {
            let bits = summary.bits_per_byte.map(|bits| format!("{bits:.4}"));
            let mut measures = vec![
                Measure::new("loss", format!("{:.6}", summary.loss)),
                perplexity("perplexity", summary.perplexity),
            ];
            measures.extend(bits.map(|bits| Measure::new("bits per byte", bits)));
            measures
        }
        Results::MultipleChoice(summary, _) => vec![
            Measure::share("acc", summary.acc, summary.acc_stderr),
            Measure::share("acc_norm", summary.acc_norm, summary.acc_norm_stderr),
        ],
        Results::LastWord(summary, _) => vec![
            Measure::share("acc", summary.acc, summary.acc_stderr),
            perplexity("perplexity", summary.perplexity),
            perplexity("token perplexity", summary.token_perplexity),
        ],
    }
}

/// What the measures are of.
fn counted(results: &Results) -> String {
    let examples = |count: usize| format!("{} examples", grouped(count as u64));
    match results {
        Results::Loss(summary, _) => format!("{} tokens", grouped(summary.tokens as u64)),
        Results::MultipleChoice(summary, _) => examples(summary.examples),
        Results::LastWord(summary, _) => examples(summary.examples),
    }
}

/// What should be known of the results.
pub(super) fn warnings(results: &[TaskResults], block_size: usize) -> Vec<String> {
    let warning = |TaskResults { name, results }: &TaskResults| {
        let (truncated, examples) = match results {
            Results::Loss(..) => return None,
            Results::MultipleChoice(summary, _) => (summary.truncated, summary.examples),
            Results::LastWord(summary, _) => (summary.truncated, summary.examples),
        };
        (truncated > 0).then(|| {
            format!(
                "{} of the {} examples of {name} are longer than the model's block of {block_size}: of those it saw the \
                 end",
                grouped(truncated as u64),
                grouped(examples as u64)
            )
        })
    };
    results.iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_eval::tasks::loss::LossSummary;
    use gpt2_eval::tasks::multiple_choice::ChoiceSummary;

    #[test]
    fn a_table_has_a_line_for_each_measure() {
        let loss = LossSummary {
            windows: 4,
            seq: 512,
            tokens: 2048,
            loss: 2.0,
            perplexity: 2.0_f64.exp(),
            bits_per_byte: None,
        };
        let choice = ChoiceSummary {
            examples: 10_042,
            acc: 0.25,
            acc_stderr: Some(0.004_3),
            acc_norm: 0.3,
            acc_norm_stderr: None,
            truncated: 3,
        };
        let task = |name: &str, results| TaskResults {
            name: name.to_owned(),
            results,
        };
        let results = [
            task("loss", Results::Loss(loss, Vec::new())),
            task("hellaswag", Results::MultipleChoice(choice, Vec::new())),
        ];
        let text = table_of(&results);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0],
            ["task", "measure", "value", "standard", "error", "of"],
            "{text}"
        );
        assert_eq!(lines[1], ["loss", "loss", "2.000000", "2,048", "tokens"], "{text}");
        assert_eq!(
            lines[3],
            ["hellaswag", "acc", "0.2500", "0.0043", "10,042", "examples"],
            "{text}"
        );
        assert_eq!(
            warnings(&results, 64),
            ["3 of the 10,042 examples of hellaswag are longer than the model's block of 64: of those it saw the end"]
        );
    }
}
