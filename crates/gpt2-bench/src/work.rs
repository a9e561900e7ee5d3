//! One configuration of a study, and what a process of its own makes of it.
//!
//! The parent writes `work.json` into the run directory; the child trains as it says, and leaves `figures.json` or
//! `failure.json` beside the run's own files.

use crate::error::BenchError;
use crate::gpu::unix_now;
use crate::profiler::{self, Profiled, Profiling};
use gpt2_base::stats::Summary;
use gpt2_counters::{PerfEvents, Total};
use gpt2_records::{Figures, Profile, StepRecord, breakdown, settled, steady_steps, step_times, warmup_steps};
use gpt2_train::config::{BatchSize, Devices, RunConfig};
use gpt2_train::data_source::DataSource;
use gpt2_train::group::Group;
use gpt2_train::launch::{Finished, Keep, Surroundings, View};
use gpt2_train::observer::{Observer, StepReport};
use gpt2_train::rank_log::read_rank_steps;
use gpt2_train::report::Provenance;
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, StopReason, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a process of a study is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The run; its directory is where this is written.
    pub config: RunConfig,
    /// Its tokens, where the configuration names none.
    pub without_data: Corpus,
    /// Whether counters run around the timed steps.
    pub counters: bool,
    /// Variables of the environment that select a variant of the CPU's kernels.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How the run is profiled, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiling: Option<Profiling>,
}

/// Tokens that a run makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corpus {
    /// The story corpus.
    Demo,
    /// Random ones, as many as the steps take.
    Random,
}

/// What a process could not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether nothing was begun, because the configuration has no meaning or this machine cannot do it.
    pub refused: bool,
    /// Why, in a line.
    pub message: String,
}

/// What a process found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The figures.
    pub figures: Figures,
    /// When the timed steps began and ended, in seconds since 1970.
    pub timed: Option<[f64; 2]>,
    /// What a reader must know, such as counters that could not be had, and why.
    pub notes: Vec<String>,
    /// Where the time of a step goes, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The names in the directory of one configuration.
#[derive(Debug, Clone)]
pub(crate) struct WorkPaths(pub(crate) PathBuf);

impl WorkPaths {
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work.json")
    }

    pub(crate) fn found(&self) -> PathBuf {
        self.0.join("figures.json")
    }

    /// Bytes of device memory that the plan needs, as predicted.
    pub(crate) fn predicted(&self) -> PathBuf {
        self.0.join("predicted_memory_bytes.json")
    }

    pub(crate) fn failure(&self) -> PathBuf {
        self.0.join("failure.json")
    }

    pub(crate) fn stdout(&self) -> PathBuf {
        self.0.join("stdout.txt")
    }

    pub(crate) fn stderr(&self) -> PathBuf {
        self.0.join("stderr.txt")
    }

    /// A profile's trace.
    pub(crate) fn trace(&self) -> PathBuf {
        self.0.join("trace.json")
    }

    /// The row, written when the configuration has ended.
    pub(crate) fn row(&self) -> PathBuf {
        self.0.join("row.json")
    }
}

/// The work that `dir` holds.
///
/// # Errors
/// If it cannot be read.
pub fn read_work(dir: &Path) -> Result<Work, BenchError> {
    read_json(&WorkPaths(dir.to_owned()).work())
}

/// Does the work that `dir` holds, in this process or as one of the ranks of `group`, and leaves there what came of it: of
/// several ranks, rank 0 does.
///
/// # Errors
/// What is wrong with the work, once it is written there too; and if nothing can be written.
pub fn run_work(
    dir: &Path,
    group: Option<Group>,
    program: &str,
    provenance: Provenance,
    stop: StopRequest,
) -> Result<(), BenchError> {
    let paths = WorkPaths(dir.to_owned());
    let work = read_work(dir)?;
    let is_first = group.as_ref().is_none_or(|group| group.rank() == 0);
    let launched = launch(&work, dir, group);
    let refused = launched.is_err();
    if let Ok(launch) = &launched
        && is_first
    {
        // Before the first step: it may be what the device has no memory for.
        write_json(&paths.predicted(), &launch.plan().memory().total())?;
    }
    let found = launched.and_then(|launch| match &work.profiling {
        Some(profiling) => profile(launch, profiling, &paths, program, provenance, stop),
        None => measure(launch, &work, program, provenance, stop),
    });
    match found {
        Ok(_) if !is_first => Ok(()),
        Err(error) if !is_first => Err(error),
        Ok(found) => write_json(&paths.found(), &found),
        Err(error) => {
            let message = error.to_string();
            write_json(&paths.failure(), &Failure { refused, message })?;
            Err(error)
        }
    }
}

fn launch(work: &Work, dir: &Path, group: Option<Group>) -> Result<Launch, BenchError> {
    let config = RunConfig {
        run: Some(dir.to_owned()),
        ..work.config.clone()
    };
    let data = match (&config.data, work.without_data) {
        (Some(dir), _) => DataSource::Directory(dir.clone()),
        (None, Corpus::Demo) => DataSource::Demo,
        (None, Corpus::Random) => random_tokens(&config),
    };
    Ok(match group {
        Some(group) => Launch::in_group_whatever_the_memory(config, data, group)?,
        None => Launch::whatever_the_memory(&config, data)?,
    })
}

/// As many random tokens as the steps of `config` take.
pub(crate) fn random_tokens(config: &RunConfig) -> DataSource {
    let ranks = config.devices.as_ref().map(Devices::ranks);
    let batch = config.batch.and_then(BatchSize::sequences);
    let sequences = match config.global_batch {
        Some(sequences) => [Some(sequences), None, None],
        None => [batch, config.grad_accum, ranks],
    };
    let per_step = sequences
        .into_iter()
        .chain([config.seq])
        .map(|factor| factor.unwrap_or(1) as u64)
        .fold(1, u64::saturating_mul);
    DataSource::Random {
        tokens: per_step.saturating_mul(config.steps.unwrap_or(1)).saturating_add(1),
        seed: config.seed.unwrap_or_default(),
    }
}

fn measure(
    launch: Launch,
    work: &Work,
    program: &str,
    provenance: Provenance,
    stop: StopRequest,
) -> Result<Found, BenchError> {
    let steps = launch.plan().last_step();
    let marks = Arc::new(Mutex::new(Marks {
        first_timed: warmup_steps(steps as usize) as u64 + 1,
        counters: work.counters.then(|| Total::new(PerfEvents::new())),
        ..Marks::default()
    }));
    let finished = launch.run(Surroundings {
        view: View::Observer(Box::new(Watch(Arc::clone(&marks)))),
        stop,
        announcement: None,
        keep: Keep::Report(provenance),
        tensorboard: false,
    })?;
    if let StopReason::Requested(by) = &finished.outcome.reason {
        return Err(BenchError::Stopped { by: by.clone() });
    }
    let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
    let mut figures = figures(program, &finished)?;
    let mut notes = Vec::new();
    if let Some(counters) = marks.counters.take() {
        match counters.finish() {
            Ok(counts) => {
                figures.counters = counts.named();
                notes = counts.notes();
            }
            Err(error) => notes.push(error.to_string()),
        }
    }
    Ok(Found {
        figures,
        timed: marks.began.zip(marks.ended).map(|(began, ended)| [began, ended]),
        notes,
        profile: None,
    })
}

fn profile(
    launch: Launch,
    profiling: &Profiling,
    paths: &WorkPaths,
    program: &str,
    provenance: Provenance,
    stop: StopRequest,
) -> Result<Found, BenchError> {
    let Profiled {
        finished,
        profile,
        notes,
        trace,
    } = profiler::measure(launch, profiling, Keep::Report(provenance), stop)?;
    if let Some(trace) = trace {
        write_json(&paths.trace(), &trace)?;
    }
    Ok(Found {
        figures: figures(program, &finished)?,
        timed: None,
        notes,
        profile: Some(profile),
    })
}

/// What is noted around the timed steps.
#[derive(Default)]
struct Marks {
    first_timed: u64,
    /// Steps that have begun and not ended.
    in_flight: u32,
    counters: Option<Total<PerfEvents>>,
    began: Option<f64>,
    ended: Option<f64>,
}

struct Watch(Arc<Mutex<Marks>>);

impl Observer for Watch {
    fn step_begins(&mut self, step: u64) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if step < marks.first_timed {
            return;
        }
        marks.began.get_or_insert_with(unix_now);
        marks.in_flight += 1;
        if marks.in_flight == 1
            && let Some(counters) = &mut marks.counters
        {
            counters.start();
        }
    }

    fn step_ends(&mut self, step: u64) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if step < marks.first_timed {
            return;
        }
        marks.ended = Some(unix_now());
        marks.in_flight = marks.in_flight.saturating_sub(1);
        if marks.in_flight == 0
            && let Some(counters) = &mut marks.counters
        {
            counters.stop();
        }
    }

    fn step(&mut self, _: &StepReport) {}
}

/// The figures of a run that has ended.
fn figures(program: &str, finished: &Finished) -> Result<Figures, BenchError> {
    let Finished {
        plan,
        chosen,
        outcome,
        directory,
        ..
    } = finished;
    let steps = &outcome.steps;
    let rank_steps = read_rank_steps(&directory.ranks())?;
    let timed = of_step_times(step_times(steps, &rank_steps), plan.tokens_per_step());
    let largest = |memory: fn(&StepRecord) -> Option<u64>| steps.iter().filter_map(memory).max();
    let flops = gpt2_model::cost::flops_per_token(&plan.model, plan.batch.seq) as f64;
    Ok(Figures {
        program: program.to_owned(),
        device: chosen.device.name.clone(),
        peak_memory_bytes: largest(StepRecord::peak_memory_bytes).unwrap_or(0),
        driver_memory_bytes: largest(|step| step.device_driver_bytes),
        mfu: chosen
            .peak_flops(plan.machine.precision)
            .map(|peak| flops * timed.tokens_per_sec / (peak * plan.machine.ranks as f64)),
        losses: steps.iter().filter_map(|step| step.loss).collect(),
        loss_last: steps.last().and_then(|step| step.loss),
        val_losses: steps
            .iter()
            .filter_map(|step| Some((step.step, step.val_loss?)))
            .collect(),
        breakdown: breakdown(steady_steps(steps), &rank_steps),
        ..timed
    })
}

/// What the times of all steps come to, by the one rule for warm-up. The rest is left empty.
pub(crate) fn of_step_times(all_step_ms: Vec<f64>, tokens_per_step: u64) -> Figures {
    let warmup_steps = warmup_steps(all_step_ms.len());
    let (before, timed) = all_step_ms.split_at(warmup_steps);
    let step_ms = Summary::of(timed).unwrap_or_default();
    let settled = settled(&all_step_ms);
    Figures {
        tokens_per_step,
        step_ms,
        tokens_per_sec: tokens_per_step as f64 / step_ms.p50 * 1e3,
        timed_sec: timed.iter().sum::<f64>() / 1e3,
        warmup_steps,
        warmup_sec: before.iter().sum::<f64>() / 1e3,
        first_step_sec: all_step_ms.first().copied().unwrap_or_default() / 1e3,
        settled_after_steps: settled.map(|settled| settled.steps),
        settling_cost_sec: settled.map(|settled| settled.cost_ms / 1e3),
        all_step_ms,
        ..Figures::default()
    }
}

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, BenchError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::io("read", path, source))?;
    serde_json::from_slice(&bytes).map_err(|source| BenchError::Damaged {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), BenchError> {
    let text = serde_json::to_string_pretty(value).map_err(|source| TrainError::io("write", path, source.into()))?;
    gpt2_base::fs::write(path, (text + "\n").as_bytes()).map_err(|source| TrainError::io("write", path, source))?;
    Ok(())
}
