//! A profile as a study of one configuration: where the time of the trainer's own step goes, by layer kind and operation.

pub use crate::profiler::Profiling;

use crate::study::{Definition, Entry, Task};
use crate::words::settings;
use crate::work::{Corpus, Work};
use gpt2_records::{STUDY_VERSION, StudyKind};
use gpt2_train::config::RunConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the one configuration.
const NAME: &str = "profile";

/// What is profiled.
#[derive(Debug, Clone)]
pub struct ProfileStudy {
    /// Model, machine, data and seed.
    pub config: RunConfig,
    /// How often, and what is left besides the tables.
    pub profiling: Profiling,
}

impl ProfileStudy {
    /// The run.
    pub fn definition(&self) -> Definition {
        let config = RunConfig {
            steps: Some(self.profiling.steps()),
            eval_every: Some(0),
            sample_every: Some(0),
            checkpoint_every: Some(0),
            ..self.config.clone()
        };
        let mut settings = settings(&config);
        settings.insert("trials".to_owned(), self.profiling.trials.to_string());
        let work = Work {
            config,
            without_data: Corpus::Random,
            counters: false,
            env: BTreeMap::new(),
            profiling: Some(self.profiling.clone()),
        };
        Definition {
            version: STUDY_VERSION,
            kind: StudyKind::Profile,
            settings,
            axes: Vec::new(),
            entries: vec![Entry {
                name: NAME.to_owned(),
                axes: BTreeMap::new(),
                task: Task::Ours(Box::new(work)),
            }],
        }
    }
}

/// Where the trace lies in the directory of a profile.
pub fn trace_path(dir: &Path) -> PathBuf {
    crate::work::WorkPaths(dir.join("runs").join(NAME)).trace()
}
