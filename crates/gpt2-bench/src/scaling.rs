//! The scaling study: the same training on different numbers of ranks, by the slowest of them.

use crate::error::BenchError;
use crate::study::{Definition, Entry, Task, check_each_once};
use crate::words::{file_name, filled, settings};
use crate::work::{Corpus, Work};
use gpt2_base::stats::Summary;
use gpt2_base::{Invalid, nearest_multiples};
use gpt2_records::{Conclusion, Figures, Row, STUDY_VERSION, Study, StudyKind};
use gpt2_train::config::{Devices, RunConfig};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

const RANKS: &str = "ranks";
const BATCH: &str = "batch";
const REPEAT: &str = "repeat";

/// What stays the same when there are more ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The sequences of a step: each rank has fewer.
    Strong,
    /// The sequences of a rank: a step has more.
    Weak,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strong => "strong",
            Self::Weak => "weak",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "strong" => Ok(Self::Strong),
            "weak" => Ok(Self::Weak),
            _ => Err("expected strong or weak".to_owned()),
        }
    }
}

/// What is compared.
#[derive(Debug, Clone)]
pub struct ScalingStudy {
    /// Model, length, steps, machine, data and seed.
    pub config: RunConfig,
    /// What stays the same.
    pub mode: Mode,
    /// Numbers of ranks, each once.
    pub ranks: Vec<usize>,
    /// Sequences of a step, or in [`Mode::Weak`] of each rank in a step.
    pub batches: Vec<usize>,
    /// The most sequences of a micro-step; all of a rank's at once without.
    pub micro_batch: Option<usize>,
    /// How often each is measured.
    pub repeats: u64,
    /// Other programs: name, and command with `{ranks}`, `{model}`, `{batch}` (of a micro-step), `{grad_accum}`, `{seq}`,
    /// `{precision}` and `{steps}`.
    pub peers: Vec<(String, String)>,
}

impl ScalingStudy {
    /// The configurations: in each repeat every batch on every number of ranks, ours and then each peer's, so that a drift of the
    /// machine meets all.
    ///
    /// # Errors
    /// If a number is 0 or twice there, or a batch cannot be divided.
    pub fn definition(&self) -> Result<Definition, BenchError> {
        check_each_once(RANKS, &self.ranks)?;
        check_each_once(BATCH, &self.batches)?;
        if self.repeats == 0 {
            return Err(Invalid::new("repeats", &0, "at least 1").into());
        }
        let mut entries = Vec::new();
        for repeat in 1..=self.repeats {
            for &batch in &self.batches {
                for &ranks in &self.ranks {
                    let axes = [(BATCH, batch as u64), (RANKS, ranks as u64), (REPEAT, repeat)];
                    let axes = BTreeMap::from(axes.map(|(axis, value)| (axis.to_owned(), value.to_string())));
                    let tasks = self.tasks(self.config_of(batch, ranks)?, ranks);
                    entries.extend(tasks.into_iter().map(|(program, task)| Entry {
                        name: format!("{}-batch-{batch}-ranks-{ranks}-{repeat}", file_name(&program)),
                        axes: axes.clone(),
                        task,
                    }));
                }
            }
        }
        let mut settings = settings(&self.config);
        settings.extend([
            ("mode".to_owned(), self.mode.to_string()),
            ("repeats".to_owned(), self.repeats.to_string()),
        ]);
        if let Some(micro_batch) = self.micro_batch {
            settings.insert("micro-batch".to_owned(), micro_batch.to_string());
        }
        Ok(Definition {
            version: STUDY_VERSION,
            kind: StudyKind::Scaling,
            settings,
            axes: [BATCH, RANKS, REPEAT].map(str::to_owned).into(),
            entries,
        })
    }

    /// What each program does on `ranks` ranks: ours, and then the peers.
    fn tasks(&self, config: RunConfig, ranks: usize) -> Vec<(String, Task)> {
        let settings: Vec<_> = settings(&config)
            .into_iter()
            .chain([(RANKS.to_owned(), ranks.to_string())])
            .collect();
        let work = Work {
            config,
            without_data: Corpus::Random,
            counters: false,
            env: BTreeMap::new(),
            profiling: None,
        };
        let peers = self.peers.iter().map(|(name, command)| {
            let command = filled(command, settings.iter().cloned());
            (
                name.clone(),
                Task::Peer {
                    name: name.clone(),
                    command,
                },
            )
        });
        [("gpt2".to_owned(), Task::Ours(Box::new(work)))]
            .into_iter()
            .chain(peers)
            .collect()
    }

    /// The run of `ranks` ranks.
    fn config_of(&self, batch: usize, ranks: usize) -> Result<RunConfig, BenchError> {
        let of_rank = match self.mode {
            Mode::Weak => batch,
            Mode::Strong if batch.is_multiple_of(ranks) => batch / ranks,
            Mode::Strong => return Err(not_divided(batch, ranks, "the ranks that share it")),
        };
        let micro_batch = self.micro_batch.unwrap_or(of_rank).min(of_rank);
        if micro_batch == 0 || !of_rank.is_multiple_of(micro_batch) {
            let at_once = match self.mode {
                Mode::Weak => micro_batch,
                Mode::Strong => micro_batch * ranks,
            };
            return Err(not_divided(
                batch,
                at_once.max(1),
                "the sequences that are trained on at once",
            ));
        }
        Ok(RunConfig {
            devices: Some(Devices::Count(ranks)),
            batch: Some(micro_batch.into()),
            grad_accum: Some(of_rank / micro_batch),
            eval_every: Some(0),
            sample_every: Some(0),
            checkpoint_every: Some(0),
            ..self.config.clone()
        })
    }
}

fn not_divided(batch: usize, by: usize, what: &str) -> BenchError {
    Invalid::new(BATCH, &batch, format!("a multiple of {by}, {what}"))
        .fix(format!("try {}", nearest_multiples(batch, by)))
        .into()
}

/// Speed-ups over the fewest ranks of the same program and batch, and what each number of ranks comes to over its repeats.
pub fn conclude(study: &mut Study) {
    study.derive();
    let axis = |row: &Row, axis: &str| row.axes.get(axis)?.parse::<usize>().ok();
    let mut groups: Vec<(usize, usize, Option<String>)> = Vec::new();
    for row in &study.rows {
        let (Some(batch), Some(ranks)) = (axis(row, BATCH), axis(row, RANKS)) else {
            continue;
        };
        let group = (batch, ranks, row.peer.clone());
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let rows_of = |(batch, ranks, peer): &(usize, usize, Option<String>)| -> Vec<&Row> {
        let rows = study.rows.iter();
        rows.filter(|row| axis(row, BATCH) == Some(*batch) && axis(row, RANKS) == Some(*ranks) && row.peer == *peer)
            .collect()
    };
    let summary = |rows: &[&Row], value: fn(&Figures) -> f64| {
        let values: Vec<f64> = rows.iter().filter_map(|row| row.figures.as_ref()).map(value).collect();
        Summary::of(&values)
    };
    let conclusions = groups.iter().map(|group| {
        let (batch, ranks, peer) = group;
        let rows = rows_of(group);
        let fewest = groups
            .iter()
            .filter(|(other, _, program)| other == batch && program == peer)
            .map(|(_, ranks, _)| *ranks)
            .min()
            .unwrap_or(*ranks);
        let rate = |rows: &[&Row]| summary(rows, |figures| figures.tokens_per_sec);
        let because = match (rate(&rows), rate(&rows_of(&(*batch, fewest, peer.clone())))) {
            (Some(own), Some(least)) => {
                let speedup = own.p50 / least.p50;
                let of_repeats = summary(&rows, |figures| figures.step_ms.p50).unwrap_or_default();
                // Of a single repeat the spread is that of its own steps.
                let own_steps = rows.iter().find_map(|row| row.figures.as_ref()).map(|figures| figures.step_ms);
                let (step, of) = match own_steps {
                    Some(steps) if own.count == 1 => (steps, "steps"),
                    _ => (of_repeats, "repeats"),
                };
                format!(
                    "{:.0} tokens/s, {:.1} ms a step ± {:.1} (median and standard deviation of {} {of}), speed-up {speedup:.2}, \
                     efficiency {:.2}",
                    own.p50,
                    step.p50,
                    step.std,
                    step.count,
                    speedup * fewest as f64 / *ranks as f64
                )
            }
            _ => "not measured".to_owned(),
        };
        let program = peer.as_deref().unwrap_or("gpt2");
        Conclusion {
            goal: format!("batch {batch}, {ranks} rank{}, {program}", if *ranks == 1 { "" } else { "s" }),
            row: rows
                .iter()
                .find(|row| row.figures.is_some())
                .map(|row| row.name.clone()),
            because,
        }
    });
    study.conclusions = conclusions.collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_train::config::BatchSize;

    fn study(mode: Mode) -> ScalingStudy {
        ScalingStudy {
            config: RunConfig {
                seq: Some(512),
                steps: Some(30),
                ..RunConfig::default()
            },
            mode,
            ranks: vec![1, 2, 4],
            batches: vec![64],
            micro_batch: Some(16),
            repeats: 1,
            peers: Vec::new(),
        }
    }

    fn work(entry: &Entry) -> (usize, Option<usize>, Option<usize>) {
        let Task::Ours(work) = &entry.task else { panic!("ours") };
        let ranks = work.config.devices.as_ref().unwrap().ranks();
        (
            ranks,
            work.config.batch.and_then(BatchSize::sequences),
            work.config.grad_accum,
        )
    }

    #[test]
    fn strong_scaling_shares_a_batch_and_weak_scaling_adds_to_it() {
        let of = |mode| -> Vec<_> { study(mode).definition().unwrap().entries.iter().map(work).collect() };
        assert_eq!(
            of(Mode::Strong),
            [(1, Some(16), Some(4)), (2, Some(16), Some(2)), (4, Some(16), Some(1))]
        );
        assert_eq!(
            of(Mode::Weak),
            [(1, Some(16), Some(4)), (2, Some(16), Some(4)), (4, Some(16), Some(4))]
        );
    }

    #[test]
    fn a_batch_that_does_not_divide_is_refused_with_those_that_do() {
        let refused = |study: ScalingStudy| study.definition().unwrap_err().to_string();
        assert_eq!(
            refused(ScalingStudy {
                batches: vec![6],
                ..study(Mode::Strong)
            }),
            "`batch` is 6, expected a multiple of 4, the ranks that share it: try 4 or 8"
        );
        assert_eq!(
            refused(ScalingStudy {
                batches: vec![40],
                ranks: vec![2],
                ..study(Mode::Strong)
            }),
            "`batch` is 40, expected a multiple of 32, the sequences that are trained on at once: try 32 or 64"
        );
        assert_eq!(
            refused(ScalingStudy {
                ranks: vec![2, 2],
                ..study(Mode::Weak)
            }),
            "`ranks` is 2, expected numbers of 1 or more, each once"
        );
    }

    #[test]
    fn peers_know_how_many_ranks_there_are() {
        let study = ScalingStudy {
            peers: vec![(
                "DDP".into(),
                "torchrun --nproc-per-node {ranks} ddp.py --batch {batch} --accum {grad_accum}".into(),
            )],
            repeats: 2,
            ..study(Mode::Strong)
        };
        let entries = study.definition().unwrap().entries;
        assert_eq!(entries.len(), 12);
        let Task::Peer { command, .. } = &entries[3].task else {
            panic!("a peer")
        };
        assert_eq!(command, "torchrun --nproc-per-node 2 ddp.py --batch 16 --accum 2");
        assert_eq!(entries[3].name, "ddp-batch-64-ranks-2-1");
    }

    /// Tokens a second of a published study of fixed work on one, two and four GPUs.
    #[test]
    fn speed_ups_are_over_the_fewest_ranks_of_the_same_program() {
        let row = |ranks: usize, peer: Option<&str>, tokens_per_sec: f64| {
            let axes = [
                (BATCH, "16".to_owned()),
                (RANKS, ranks.to_string()),
                (REPEAT, "1".to_owned()),
            ];
            let row = serde_json::json!({
                "name": format!("{}-{ranks}", peer.unwrap_or("gpt2")), "peer": peer, "status": "done",
                "axes": axes.map(|(axis, value)| (axis.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            });
            Row {
                figures: Some(Figures {
                    tokens_per_sec,
                    ..Figures::default()
                }),
                ..serde_json::from_value(row).unwrap()
            }
        };
        let rows = [
            row(1, None, 29_600.0),
            row(2, None, 57_289.0),
            row(4, None, 100_791.0),
            row(1, Some("DDP"), 10_000.0),
            row(2, Some("DDP"), 15_000.0),
        ];
        let study = serde_json::json!({
            "version": STUDY_VERSION, "kind": "scaling", "settings": {}, "axes": [BATCH, RANKS, REPEAT],
            "baseline": null, "rows": rows, "conclusions": [], "notes": [],
            "made": {
                "timestamp_utc": "", "command_line": "", "gpt2_version": "", "git_commit": null, "burn_version": "",
                "host": {"hostname": null, "os": null, "cpu": null, "cores": 1, "memory_bytes": 1}, "devices": [],
            },
        });
        let mut study: Study = serde_json::from_value(study).unwrap();
        conclude(&mut study);
        let shown: Vec<String> = study
            .rows
            .iter()
            .map(|row| row.derived.unwrap())
            .map(|derived| format!("{:.2} {:.2}", derived.speedup.unwrap(), derived.efficiency.unwrap()))
            .collect();
        assert_eq!(shown, ["1.00 1.00", "1.94 0.97", "3.41 0.85", "1.00 1.00", "1.50 0.75"]);
        let last = &study.conclusions[4];
        assert_eq!(last.goal, "batch 16, 2 ranks, DDP");
        assert!(
            last.because.ends_with("speed-up 1.50, efficiency 0.75"),
            "{}",
            last.because
        );
    }
}
