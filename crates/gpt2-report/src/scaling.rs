//! Runs of the same work on different numbers of ranks, compared: and refused, where the work is not the same.

use crate::tables::{Cell, Heading, Number, Source, Table};
use gpt2_base::stats::Summary;
use gpt2_records::TrainingMetrics;
use serde::Serialize;
use std::fmt;

/// A run whose steps tell less than this share of its tokens was resumed: the time of its earlier steps is not known.
const WHOLE_RUN: f64 = 0.9;

/// Runs of the same work, by the number of ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaling {
    /// From the fewest ranks to the most. The first is what the others are compared with.
    pub rows: Vec<ScalingRow>,
    /// In what the runs differ, where that was allowed: the figures then compare different work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<Mismatch>,
}

/// Runs of one configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScalingRow {
    /// Processes that trained together.
    pub ranks: usize,
    /// Sequences of a rank in a micro-step.
    pub micro_batch: usize,
    /// Micro-steps in a step.
    pub grad_accum: usize,
    /// Names of the runs.
    pub runs: Vec<String>,
    /// Wall time of the steps; none where a run was resumed, and only its last part is known.
    pub steps_sec: Option<Repeats>,
    /// Tokens a second of all ranks together, after the warm-up.
    pub tokens_per_sec: Repeats,
    /// Mean tokens a second over those of the first row.
    pub speedup: f64,
    /// Speed-up over the ratio of ranks.
    pub efficiency: f64,
}

/// A figure over the repeats of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Repeats {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation; 0 for a single run.
    pub std: f64,
}

/// A field in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The field of `training_metrics.json`.
    pub field: &'static str,
    /// Name of the first run, which all others are compared with.
    pub run_a: String,
    /// Its value.
    pub value_a: String,
    /// Name of the other run.
    pub run_b: String,
    /// Its value.
    pub value_b: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            run_a,
            value_a,
            run_b,
            value_b,
        } = self;
        write!(f, "`{field}` is {value_a} in {run_a} and {value_b} in {run_b}")
    }
}

/// Why runs cannot be compared. Its text begins with `invalid_comparison`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidComparison {
    /// There is nothing to compare.
    #[error("invalid_comparison: {found} run given, expected at least 2; name more run directories")]
    TooFew {
        /// How many runs there are.
        found: usize,
    },
    /// The work or the configuration differs.
    #[error(
        "invalid_comparison: {}; repeat the runs with equal settings, or allow the mismatch",
        mismatches.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Mismatch {
        /// Each field, for each run that differs in it.
        mismatches: Vec<Mismatch>,
    },
    /// A run has not measured its speed.
    #[error(
        "invalid_comparison: `summary.mean_tokens_per_sec_global` of {run} is {found}, expected more than 0; let the \
         run take more steps"
    )]
    NoSpeed {
        /// The run.
        run: String,
        /// What is there.
        found: String,
    },
}

/// Compares runs of the same work.
///
/// # Errors
/// [`InvalidComparison`], where the work or the configuration differs too.
pub fn compare(runs: &[TrainingMetrics]) -> Result<Scaling, InvalidComparison> {
    let scaling = compare_allowing_mismatch(runs)?;
    if scaling.mismatches.is_empty() {
        Ok(scaling)
    } else {
        Err(InvalidComparison::Mismatch {
            mismatches: scaling.mismatches,
        })
    }
}

/// Compares runs, and lists in what their work differs.
///
/// # Errors
/// [`InvalidComparison::TooFew`] and [`InvalidComparison::NoSpeed`].
pub fn compare_allowing_mismatch(runs: &[TrainingMetrics]) -> Result<Scaling, InvalidComparison> {
    if runs.len() < 2 {
        return Err(InvalidComparison::TooFew { found: runs.len() });
    }
    let mut runs: Vec<&TrainingMetrics> = runs.iter().collect();
    runs.sort_by_key(|run| configuration(run));
    let first = runs[0];
    let mismatches = runs[1..].iter().flat_map(|run| mismatches(first, run)).collect();
    let mut rows = Vec::new();
    for runs in runs.chunk_by(|a, b| configuration(a) == configuration(b)) {
        rows.push(row(runs)?);
    }
    let (base_rate, base_ranks) = (rows[0].tokens_per_sec.mean, rows[0].ranks as f64);
    for row in &mut rows {
        row.speedup = row.tokens_per_sec.mean / base_rate;
        row.efficiency = row.speedup / (row.ranks as f64 / base_ranks);
    }
    Ok(Scaling { rows, mismatches })
}

/// What makes runs repeats of each other, once their work is the same.
fn configuration(run: &TrainingMetrics) -> (usize, usize, usize) {
    let config = &run.training_config;
    (
        run.hardware.world_size,
        config.micro_batch_size_per_gpu,
        config.grad_accum_steps,
    )
}

fn row(runs: &[&TrainingMetrics]) -> Result<ScalingRow, InvalidComparison> {
    let mut rates = Vec::new();
    for run in runs {
        let rate = run.summary.mean_tokens_per_sec_global;
        let usable = rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        rates.push(usable.ok_or_else(|| InvalidComparison::NoSpeed {
            run: run.run_id.clone(),
            found: rate.map_or_else(|| "null".to_owned(), |rate| rate.to_string()),
        })?);
    }
    let times: Option<Vec<f64>> = runs
        .iter()
        .zip(&rates)
        .map(|(run, &rate)| steps_sec(run, rate))
        .collect();
    let (ranks, micro_batch, grad_accum) = configuration(runs[0]);
    Ok(ScalingRow {
        ranks,
        micro_batch,
        grad_accum,
        runs: runs.iter().map(|run| run.run_id.clone()).collect(),
        steps_sec: times.and_then(|times| Repeats::of(&times)),
        tokens_per_sec: Repeats::of(&rates).unwrap_or(Repeats { mean: 0.0, std: 0.0 }),
        speedup: 1.0,
        efficiency: 1.0,
    })
}

/// Wall time of a run's steps, if its last process took all of them.
fn steps_sec(run: &TrainingMetrics, tokens_per_sec: f64) -> Option<f64> {
    let seconds = run.phases.steps_sec;
    (seconds * tokens_per_sec >= WHOLE_RUN * run.summary.tokens as f64).then_some(seconds)
}

impl Repeats {
    fn of(values: &[f64]) -> Option<Self> {
        Summary::of(values).map(|summary| Self {
            mean: summary.mean,
            std: summary.std,
        })
    }
}

/// A field that must be equal, as text.
type Field = (&'static str, fn(&TrainingMetrics) -> String);

/// The fixed work and the configuration: what must be equal.
fn mismatches(a: &TrainingMetrics, b: &TrainingMetrics) -> Vec<Mismatch> {
    fn text(value: Option<&String>) -> String {
        value.map_or_else(|| "null".to_owned(), Clone::clone)
    }
    let fields: [Field; 16] = [
        ("training_config.model_name", |run| {
            run.training_config.model_name.clone()
        }),
        ("training_config.model_size", |run| {
            run.training_config.model_size.to_string()
        }),
        ("training_config.seq_len", |run| run.training_config.seq_len.to_string()),
        ("training_config.global_batch_size", |run| {
            run.training_config.global_batch_size.to_string()
        }),
        ("summary.steps", |run| run.summary.steps.to_string()),
        ("summary.tokens", |run| run.summary.tokens.to_string()),
        ("training_config.precision", |run| run.training_config.precision.clone()),
        ("training_config.optimizer", |run| run.training_config.optimizer.clone()),
        ("training_config.lr", |run| run.training_config.lr.to_string()),
        ("training_config.dataset_name", |run| {
            run.training_config.dataset_name.clone()
        }),
        ("training_config.dataset_subset_sizes.train", |run| {
            run.training_config.dataset_subset_sizes.train.to_string()
        }),
        ("training_config.dataset_subset_sizes.val", |run| {
            run.training_config.dataset_subset_sizes.val.to_string()
        }),
        ("backend", |run| run.backend.clone()),
        ("hardware.gpu_name", |run| text(run.hardware.gpu_name.as_ref())),
        ("git_commit", |run| text(run.git_commit.as_ref())),
        ("burn_version", |run| run.burn_version.clone()),
    ];
    fields
        .into_iter()
        .map(|(field, value)| Mismatch {
            field,
            run_a: a.run_id.clone(),
            value_a: value(a),
            run_b: b.run_id.clone(),
            value_b: value(b),
        })
        .filter(|mismatch| mismatch.value_a != mismatch.value_b)
        .collect()
}

impl Scaling {
    /// The table for people. Its numbers are those of this value's own JSON.
    pub fn table(&self) -> Table {
        let column = |title: &str, unit: &'static str| Heading {
            title: title.to_owned(),
            unit,
            is_numeric: true,
        };
        let number = |value: f64, decimals, at: String| {
            Cell::Number(Number {
                value,
                decimals,
                source: Source::At(at),
                per: 1.0,
            })
        };
        let rows = self.rows.iter().enumerate().map(|(index, row)| {
            let at = |field: &str| format!("/rows/{index}/{field}");
            let time = |value: fn(&Repeats) -> f64, field| match &row.steps_sec {
                Some(repeats) => number(value(repeats), 2, at(field)),
                None => Cell::Empty,
            };
            vec![
                number(row.ranks as f64, 0, at("ranks")),
                number(row.micro_batch as f64, 0, at("micro_batch")),
                number(row.grad_accum as f64, 0, at("grad_accum")),
                Cell::Text(row.runs.join(", ")),
                time(|repeats| repeats.mean, "steps_sec/mean"),
                time(|repeats| repeats.std, "steps_sec/std"),
                number(row.tokens_per_sec.mean, 0, at("tokens_per_sec/mean")),
                number(row.tokens_per_sec.std, 0, at("tokens_per_sec/std")),
                number(row.speedup, 2, at("speedup")),
                number(row.efficiency, 2, at("efficiency")),
            ]
        });
        Table {
            title: "Scaling".to_owned(),
            columns: vec![
                column("Ranks", ""),
                column("Micro-batch", ""),
                column("Accumulation", ""),
                Heading {
                    title: "Runs".to_owned(),
                    unit: "",
                    is_numeric: false,
                },
                column("Steps, mean", "s"),
                column("Steps, std", "s"),
                column("Throughput, mean", "tokens/s"),
                column("Throughput, std", "tokens/s"),
                column("Speed-up", "×"),
                column("Efficiency", ""),
            ],
            rows: rows.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::example::training_metrics;

    /// A study of GPT-2 on one, two and four GPUs, as published: tokens a second, and seconds of all steps.
    const PUBLISHED: [(usize, f64, f64); 3] =
        [(1, 29_600.05, 1017.61), (2, 57_289.31, 522.01), (4, 100_791.44, 296.10)];

    fn run(ranks: usize, tokens_per_sec: f64, steps_sec: f64) -> TrainingMetrics {
        let mut run = training_metrics();
        run.run_id = format!("gpus-{ranks}");
        run.hardware.world_size = ranks;
        run.training_config.grad_accum_steps = 4 / ranks;
        run.training_config.micro_batch_size_per_gpu = 4;
        run.training_config.global_batch_size = 16;
        run.training_config.seq_len = 512;
        run.summary.steps = 3561;
        run.summary.tokens = 29_171_712;
        run.summary.mean_tokens_per_sec_global = Some(tokens_per_sec);
        run.phases.steps_sec = steps_sec;
        run
    }

    fn published() -> Vec<TrainingMetrics> {
        PUBLISHED.map(|(ranks, rate, seconds)| run(ranks, rate, seconds)).into()
    }

    #[test]
    fn the_published_study_comes_out_as_it_was_published() {
        let mut runs = published();
        runs.reverse();
        let scaling = compare(&runs).unwrap();
        let rounded: Vec<_> = scaling
            .rows
            .iter()
            .map(|row| {
                (
                    row.ranks,
                    format!("{:.2}", row.speedup),
                    format!("{:.2}", row.efficiency),
                )
            })
            .collect();
        let expected = [(1, "1.00", "1.00"), (2, "1.94", "0.97"), (4, "3.41", "0.85")];
        assert_eq!(
            rounded,
            expected.map(|(ranks, speedup, efficiency)| (ranks, speedup.to_owned(), efficiency.to_owned()))
        );
        let table = scaling.table();
        let cells: Vec<_> = table.rows[2].iter().map(Cell::text).collect();
        assert_eq!(
            cells,
            [
                "4", "4", "1", "gpus-4", "296.10", "0.00", "100,791", "0", "3.41", "0.85"
            ]
        );
        assert_eq!(table.columns.len(), cells.len());
        // The pointers lead to the numbers.
        let json = serde_json::to_value(&scaling).unwrap();
        for cell in table.rows.iter().flatten() {
            if let Cell::Number(Number {
                value,
                source: Source::At(at),
                ..
            }) = cell
            {
                assert_eq!(
                    json.pointer(at).and_then(serde_json::Value::as_f64),
                    Some(*value),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn repeats_have_a_mean_and_a_standard_deviation() {
        let mut runs = published();
        runs.push(run(1, 29_800.05, 1010.61));
        let scaling = compare(&runs).unwrap();
        let one = &scaling.rows[0];
        assert_eq!((scaling.rows.len(), one.runs.len()), (3, 2));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(one.tokens_per_sec.mean, 29_700.05) && close(one.tokens_per_sec.std, 100.0 * 2.0_f64.sqrt()));
        assert!(one.steps_sec.is_some_and(|time| close(time.mean, 1014.11)));
        assert!(close(scaling.rows[1].speedup, 57_289.31 / 29_700.05));
    }

    #[test]
    fn other_work_is_refused_with_field_and_values() {
        let mut runs = published();
        runs[1].training_config.precision = "f16".to_owned();
        runs[2].git_commit = None;
        runs[2].summary.steps = 3000;
        let error = compare(&runs).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid_comparison: `training_config.precision` is bf16 in gpus-1 and f16 in gpus-2; \
             `summary.steps` is 3561 in gpus-1 and 3000 in gpus-4; \
             `git_commit` is 0123abc in gpus-1 and null in gpus-4; \
             repeat the runs with equal settings, or allow the mismatch"
        );
        let allowed = compare_allowing_mismatch(&runs).unwrap();
        assert_eq!((allowed.rows.len(), allowed.mismatches.len()), (3, 3));
    }

    #[test]
    fn every_part_of_the_work_is_compared() {
        type Change = (&'static str, fn(&mut TrainingMetrics));
        let changes: [Change; 16] = [
            ("training_config.model_name", |run| {
                run.training_config.model_name.push('x');
            }),
            ("training_config.model_size", |run| run.training_config.model_size += 1),
            ("training_config.seq_len", |run| run.training_config.seq_len += 1),
            ("training_config.global_batch_size", |run| {
                run.training_config.global_batch_size += 1;
            }),
            ("summary.steps", |run| run.summary.steps += 1),
            ("summary.tokens", |run| run.summary.tokens += 1),
            ("training_config.precision", |run| {
                run.training_config.precision.push('x');
            }),
            ("training_config.optimizer", |run| {
                run.training_config.optimizer.push('x');
            }),
            ("training_config.lr", |run| run.training_config.lr *= 2.0),
            ("training_config.dataset_name", |run| {
                run.training_config.dataset_name.push('x');
            }),
            ("training_config.dataset_subset_sizes.train", |run| {
                run.training_config.dataset_subset_sizes.train += 1;
            }),
            ("training_config.dataset_subset_sizes.val", |run| {
                run.training_config.dataset_subset_sizes.val += 1;
            }),
            ("backend", |run| run.backend.push('x')),
            ("hardware.gpu_name", |run| {
                run.hardware.gpu_name = Some("other".to_owned());
            }),
            ("git_commit", |run| run.git_commit = Some("other".to_owned())),
            ("burn_version", |run| run.burn_version.push('x')),
        ];
        for (field, change) in changes {
            let mut runs = published();
            change(&mut runs[1]);
            let InvalidComparison::Mismatch { mismatches } = compare(&runs).unwrap_err() else {
                panic!("{field} was not noticed");
            };
            assert_eq!(mismatches.iter().map(|m| m.field).collect::<Vec<_>>(), [field]);
        }
    }

    #[test]
    fn too_few_runs_and_runs_without_speed_are_told() {
        assert_eq!(
            compare(&published()[..1]).unwrap_err().to_string(),
            "invalid_comparison: 1 run given, expected at least 2; name more run directories"
        );
        let mut runs = published();
        runs[2].summary.mean_tokens_per_sec_global = None;
        let error = compare(&runs).unwrap_err().to_string();
        assert!(
            error.starts_with("invalid_comparison: `summary.mean_tokens_per_sec_global` of gpus-4 is null, "),
            "{error}"
        );
    }

    #[test]
    fn the_wall_time_of_a_resumed_run_is_not_known() {
        let mut runs = published();
        // The last process took the last third of the steps.
        runs[0].phases.steps_sec /= 3.0;
        let scaling = compare(&runs).unwrap();
        assert_eq!(scaling.rows[0].steps_sec, None);
        assert!((scaling.rows[1].speedup - 57_289.31 / 29_600.05).abs() < 1e-12);
        assert_eq!(scaling.table().rows[0][4], Cell::Empty);
    }
}
