//! Fixed work: exactly so many optimizer steps of a global batch, on whatever there is, so that systems can be compared by
//! their wall time.

use crate::error::BenchError;
use crate::study::{Definition, Entry, Task};
use crate::words::{file_name, filled, settings};
use crate::work::{Corpus, Work};
use gpt2_base::stats::Summary;
use gpt2_base::{Invalid, nearest_multiples};
use gpt2_records::{Conclusion, Row, STUDY_VERSION, Study, StudyKind};
use gpt2_train::TrainError;
use gpt2_train::config::{BatchSize, Devices, RunConfig};
use std::collections::BTreeMap;
use std::path::Path;

/// Optimizer steps of the work at its full length: one pass over the 57,000 sequences of the study that it is compared with.
pub const STEPS: u64 = 3561;

/// Tokens of a sequence.
pub const SEQ: usize = 512;

/// Sequences of an optimizer step.
pub const GLOBAL_BATCH: usize = 16;

/// Sequences of a micro-step.
pub const MICRO_BATCH: usize = 4;

/// The work.
#[derive(Debug, Clone)]
pub struct FixedWork {
    /// Model, machine, data and seed.
    pub config: RunConfig,
    /// Sequences of an optimizer step.
    pub global_batch: usize,
    /// Optimizer steps at the full length.
    pub steps: u64,
    /// Share of them that is done.
    pub scale: f64,
    /// How often it is done.
    pub repeats: u64,
    /// Other programs: name, and command with `{model}`, `{batch}`, `{seq}`, `{grad_accum}`, `{precision}`, `{steps}` and, of
    /// several devices, `{devices}`.
    pub peers: Vec<(String, String)>,
}

impl FixedWork {
    /// Optimizer steps that are done.
    ///
    /// # Errors
    /// If the scale is not above 0 and at most 1.
    pub fn scaled_steps(&self) -> Result<u64, BenchError> {
        if !(self.scale > 0.0 && self.scale <= 1.0) {
            return Err(Invalid::new("scale", &self.scale, "above 0 and at most 1, such as 0.01").into());
        }
        Ok(((self.steps as f64 * self.scale).round() as u64).max(1))
    }

    fn micro_batch(&self) -> usize {
        self.config.batch.and_then(BatchSize::sequences).unwrap_or(MICRO_BATCH)
    }

    /// Micro-steps of an optimizer step on `devices` devices.
    ///
    /// # Errors
    /// If the global batch does not divide, with the nearest that do.
    pub fn grad_accum(&self, devices: usize) -> Result<usize, BenchError> {
        let at_once = self.micro_batch().max(1) * devices.max(1);
        let wanted = self.global_batch;
        if wanted > 0 && wanted.is_multiple_of(at_once) {
            return Ok(wanted / at_once);
        }
        Err(Invalid::new(
            "global-batch",
            &wanted,
            format!("a multiple of {at_once}, the sequences that are trained on at once"),
        )
        .fix(format!("try {}", nearest_multiples(wanted, at_once)))
        .into())
    }

    /// The configurations: each repeat of ours, then of each peer.
    ///
    /// # Errors
    /// Those of [`FixedWork::scaled_steps`] and [`FixedWork::grad_accum`], and if nothing is repeated.
    pub fn definition(&self) -> Result<Definition, BenchError> {
        if self.repeats == 0 {
            return Err(Invalid::new("repeats", &0, "at least 1").into());
        }
        let steps = self.scaled_steps()?;
        let ranks = self.config.devices.as_ref().map_or(1, Devices::ranks);
        let grad_accum = self.grad_accum(ranks)?;
        let config = RunConfig {
            steps: Some(steps),
            batch: Some(self.micro_batch().into()),
            seq: Some(self.config.seq.unwrap_or(SEQ)),
            grad_accum: Some(grad_accum),
            eval_every: Some(0),
            sample_every: Some(0),
            checkpoint_every: Some(0),
            log_every: Some(50),
            ..self.config.clone()
        };
        let mut entries = Vec::new();
        let mut entry = |program: &str, repeat: u64, task: Task| {
            entries.push(Entry {
                name: format!("{}-{repeat}", file_name(program)),
                axes: BTreeMap::from([("repeat".to_owned(), repeat.to_string())]),
                task,
            });
        };
        // One of each after the other, so that a drift of the machine meets all.
        for repeat in 1..=self.repeats {
            let work = Work {
                config: config.clone(),
                without_data: Corpus::Random,
                counters: false,
                env: BTreeMap::new(),
                profiling: None,
            };
            entry("gpt2", repeat, Task::Ours(Box::new(work)));
            for (name, command) in &self.peers {
                let task = Task::Peer {
                    name: name.clone(),
                    command: filled(command, settings(&config)),
                };
                entry(name, repeat, task);
            }
        }
        let mut settings = settings(&config);
        let tokens = steps * (self.global_batch * config.seq.unwrap_or(SEQ)) as u64;
        settings.extend([
            ("global-batch".to_owned(), self.global_batch.to_string()),
            ("scale".to_owned(), self.scale.to_string()),
            ("tokens".to_owned(), tokens.to_string()),
            ("repeats".to_owned(), self.repeats.to_string()),
        ]);
        Ok(Definition {
            version: STUDY_VERSION,
            kind: StudyKind::FixedWork,
            settings,
            axes: vec!["repeat".to_owned()],
            entries,
        })
    }
}

/// Wall time of the steps over repeats, and speed-ups over the first peer, if there is one.
pub fn conclude(study: &mut Study) {
    let program = |row: &Row| row.peer.clone().unwrap_or_else(|| "gpt2".to_owned());
    let mut programs: Vec<String> = Vec::new();
    for row in &study.rows {
        if !programs.contains(&program(row)) {
            programs.push(program(row));
        }
    }
    let baseline = programs.get(1).or(programs.first()).cloned();
    study.baseline = study
        .rows
        .iter()
        .find(|row| Some(program(row)) == baseline && row.figures.is_some())
        .map(|row| row.name.clone());
    study.derive();
    for name in programs {
        let rows: Vec<&Row> = study.rows.iter().filter(|row| program(row) == name).collect();
        let figures: Vec<_> = rows.iter().filter_map(|row| row.figures.as_ref()).collect();
        let summary = |value: fn(&gpt2_records::Figures) -> f64| {
            Summary::of(&figures.iter().map(|&one| value(one)).collect::<Vec<_>>())
        };
        let seconds = |figures: &gpt2_records::Figures| (figures.all_step_ms.iter().sum::<f64>()) / 1e3;
        let because = match (summary(seconds), summary(|figures| figures.tokens_per_sec)) {
            (Some(wall), Some(rate)) => format!(
                "{} repeats: steps {:.2} s ± {:.2} (mean and standard deviation), {:.0} tokens/s ± {:.0}",
                wall.count, wall.mean, wall.std, rate.mean, rate.std
            ),
            _ => "not measured".to_owned(),
        };
        study.conclusions.push(Conclusion {
            goal: name,
            row: rows
                .iter()
                .find(|row| row.figures.is_some())
                .map(|row| row.name.clone()),
            because,
        });
    }
}

/// Copies the run's `training_metrics.json`, `RUN_COMPLETE.txt` and `launcher_metadata.json` to the study's directory, where
/// the study that this replaces has them.
///
/// # Errors
/// If a file cannot be copied.
pub fn publish(dir: &Path, study: &Study) -> Result<(), BenchError> {
    let Some(row) = study
        .rows
        .iter()
        .find(|row| row.peer.is_none() && row.figures.is_some())
    else {
        return Ok(());
    };
    for name in ["training_metrics.json", "launcher_metadata.json", "RUN_COMPLETE.txt"] {
        let from = dir.join("runs").join(&row.name).join(name);
        let bytes = std::fs::read(&from).map_err(|source| TrainError::io("read", &from, source))?;
        let to = dir.join(name);
        gpt2_base::fs::write(&to, &bytes).map_err(|source| TrainError::io("write", &to, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> FixedWork {
        FixedWork {
            config: RunConfig::default(),
            global_batch: GLOBAL_BATCH,
            steps: STEPS,
            scale: 1.0,
            repeats: 1,
            peers: Vec::new(),
        }
    }

    #[test]
    fn the_full_length_is_29_million_tokens() {
        let definition = work().definition().unwrap();
        assert_eq!(definition.settings["tokens"], "29171712");
        let Task::Ours(work) = &definition.entries[0].task else {
            panic!("ours")
        };
        assert_eq!((work.config.steps, work.config.grad_accum), (Some(3561), Some(4)));
    }

    #[test]
    fn accumulation_follows_from_the_devices_or_is_refused() {
        assert_eq!([1, 2, 4].map(|devices| work().grad_accum(devices).unwrap()), [4, 2, 1]);
        let error = work().grad_accum(3).unwrap_err().to_string();
        assert_eq!(
            error,
            "`global-batch` is 16, expected a multiple of 12, the sequences that are trained on at once: try 12 or 24"
        );
    }

    #[test]
    fn a_share_of_the_steps_is_rounded() {
        let scaled = |scale| FixedWork { scale, ..work() }.scaled_steps();
        assert_eq!((scaled(0.01).unwrap(), scaled(1e-9).unwrap()), (36, 1));
        for wrong in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(scaled(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn repeats_alternate_between_programs() {
        let work = FixedWork {
            repeats: 2,
            peers: vec![(
                "PyTorch".into(),
                "step.py --batch {batch} --accum {grad_accum} --steps {steps}".into(),
            )],
            ..work()
        };
        let definition = work.definition().unwrap();
        let names: Vec<_> = definition.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["gpt2-1", "pytorch-1", "gpt2-2", "pytorch-2"]);
        let Task::Peer { command, .. } = &definition.entries[1].task else {
            panic!("a peer")
        };
        assert_eq!(command, "step.py --batch 4 --accum 4 --steps 3561");
    }
}
