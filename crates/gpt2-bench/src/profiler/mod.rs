//! A profile: where the time of the trainer's own step goes, by layer kind and by operation.
//!
//! Every other step of a run is profiled, so that a drift of the machine meets both. On CUDA events stand between the
//! operations, and the device goes on; elsewhere each operation is waited for, which on a CPU is no wait.

mod bound;
mod ceilings;
mod recorder;
mod timeline;
mod trace;

use crate::error::BenchError;
use bound::{IDLE, REST, advice, bound};
use ceilings::MeasureCeilings;
use gpt2_backend::{BackendKind, Chosen, dispatch, thread_pool};
use gpt2_base::stats::{Summary, median};
use gpt2_counters::{PerfEvents, Recording, top_down};
use gpt2_model::Operations;
use gpt2_model::spans::{LayerKind, Pass, Span};
use gpt2_records::{KindTime, OperationTime, Profile, TopDown};
use gpt2_train::launch::{Finished, Keep, Surroundings, View};
use gpt2_train::plan::RunPlan;
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, StopReason};
use recorder::{Recorder, Trials};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use timeline::{Trial, cost_of_marks, trials};
use trace::Trace;

/// Steps before the first that is looked at.
const WARMUP: u64 = 10;

/// How a run is profiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiling {
    /// Steps that are profiled.
    pub trials: u64,
    /// Whether a trace is written.
    pub trace: bool,
    /// Counts of another time or machine, from which the top-down metrics are taken.
    pub recording: Option<PathBuf>,
}

impl Profiling {
    /// The steps of the run.
    pub(crate) fn steps(&self) -> u64 {
        self.trials().steps()
    }

    fn trials(&self) -> Trials {
        let counts = self.recording.is_none() && !processor_events().is_empty();
        Trials {
            warmup: WARMUP,
            profiled: self.trials,
            counted: if counts { self.trials } else { 0 },
        }
    }
}

/// A profiled run.
pub(crate) struct Profiled {
    pub(crate) finished: Finished,
    pub(crate) profile: Profile,
    /// What a reader must know.
    pub(crate) notes: Vec<String>,
    /// If it was asked for.
    pub(crate) trace: Option<Trace>,
}

/// Profiles a run.
pub(crate) fn measure(
    launch: Launch,
    profiling: &Profiling,
    keep: Keep,
    stop: StopRequest,
) -> Result<Profiled, BenchError> {
    let (plan, chosen) = (launch.plan().clone(), launch.chosen().clone());
    if plan.machine.operations == Operations::Reference || plan.model.dropout > 0.0 {
        return Err(BenchError::NotProfiled);
    }
    // Before the run, so that a recording that cannot be read costs no time.
    let recorded = profiling.recording.as_deref().map(Recording::read).transpose()?;
    let recorded = recorded.map(|recording| recording.top_down()).transpose()?;
    let pool = thread_pool(plan.machine.threads)?;
    let precision = plan.machine.precision;
    let is_host = is_host(&chosen);
    let ceilings = pool.install(|| dispatch(&chosen, MeasureCeilings { precision, is_host }))?;
    let trials_wanted = profiling.trials();
    let counters = (is_host && trials_wanted.counted > 0).then(|| PerfEvents::with_raw_events(processor_events()));
    let recorder = Recorder::new(trials_wanted, chosen.timer()??, counters);
    let finished = launch.run(Surroundings {
        view: View::Observer(Box::new(recorder.clone())),
        stop,
        announcement: None,
        keep,
        tensorboard: false,
    })?;
    if let StopReason::Requested(by) = &finished.outcome.reason {
        return Err(BenchError::Stopped { by: by.clone() });
    }
    let marks = recorder.marks()?;
    let trace = profiling.trace.then(|| Trace::of(&marks));
    let is_asynchronous = recorder.is_asynchronous();
    let of_marks = cost_of_marks(&marks);
    let all = trials(&marks, is_asynchronous, of_marks);
    let mut profile = summary(&all, trials_wanted, &plan, is_asynchronous);
    profile.ceilings = ceilings;
    for operation in &mut profile.operations {
        let (name, share) = bound(operation.flop, operation.bytes, operation.ms, &ceilings);
        name.clone_into(&mut operation.bound_by);
        operation.of_ceiling = share;
    }
    let step_ms = profile.unprofiled_step_ms.p50;
    profile.mfu = profile.computed_mfu();
    profile.advice = advice(&profile.kinds, &profile.operations, step_ms);
    let mut notes = vec![format!(
        "Profiled steps take {:.3} times as long as the others between them. Two marks with nothing between them cost \
         {:.2} µs, which is taken off between operations.",
        profile.profiled_step_ms.p50 / step_ms,
        1e6 * of_marks.as_secs_f64()
    )];
    notes.push(
        match (is_asynchronous, is_host) {
            (true, _) => {
                "Times are the device's own, between events; idle time within an operation counts as the operation's."
            }
            (false, true) => "The device is the processor that the program runs on: it is never idle for want of work.",
            (false, false) => {
                "Each operation is waited for, since this backend has no events: idle time is not seen, and profiled \
                 steps take as much longer as is said here."
            }
        }
        .to_owned(),
    );
    match recorded.map_or_else(|| counted(&recorder, is_host), Ok) {
        Ok(top_down) => profile.top_down = Some(top_down),
        Err(reason) => notes.push(format!("No top-down metrics: {reason}.")),
    }
    Ok(Profiled {
        finished,
        profile,
        notes,
        trace,
    })
}

fn is_host(chosen: &Chosen) -> bool {
    matches!(chosen.backend, BackendKind::Ndarray | BackendKind::Flex)
}

/// The events of this machine's processor from which the top-down metrics are computed.
fn processor_events() -> &'static [top_down::RawEvent] {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    top_down::events(&cpuinfo)
}

/// The top-down metrics of the counted steps, or why there are none.
fn counted(recorder: &Recorder, is_host: bool) -> Result<TopDown, String> {
    const OR_RECORDED: &str = "a recording of `perf stat` can be given";
    if !is_host {
        return Err(format!(
            "they are those of a processor, and this device is none; {OR_RECORDED}"
        ));
    }
    if processor_events().is_empty() {
        return Err(format!(
            "the events of this processor are not among those of Intel's Skylake to Cascade Lake and AMD's Zen 4; {OR_RECORDED}"
        ));
    }
    let mut kinds: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for step in recorder.counts()? {
        for (kind, counts) in step {
            let slots = top_down(&counts).map_err(|error| {
                let missing = counts.notes().join("; ");
                format!("{error} ({missing}); {OR_RECORDED}")
            })?;
            kinds.entry(kind.name().to_owned()).or_default().push(slots);
        }
    }
    Ok(TopDown { recorded: None, kinds })
}

/// Medians over the trials. Ceilings and what follows from them are left out.
fn summary(all: &[Trial], wanted: Trials, plan: &RunPlan, is_asynchronous: bool) -> Profile {
    let profiled: Vec<&Trial> = all.iter().filter(|trial| !trial.spans.is_empty()).collect();
    let plain: Vec<f64> = all
        .iter()
        .filter(|trial| wanted.is_plain(trial.step))
        .map(|trial| trial.ms)
        .collect();
    let unprofiled_step_ms = Summary::of(&plain).unwrap_or_default();
    let kind = |name: &str, trials_ms: Vec<[f64; 2]>| {
        let [forward_ms, backward_ms] = [0, 1].map(|pass| middle(trials_ms.iter().map(|both| both[pass])));
        KindTime {
            kind: name.to_owned(),
            forward_ms,
            backward_ms,
            share: (forward_ms + backward_ms) / unprofiled_step_ms.p50,
            std_ms: spread(trials_ms.iter().map(|both| both[0] + both[1])),
            trials_ms,
        }
    };
    let of_kind = |trial: &Trial, layer: LayerKind, backward: bool| -> f64 {
        let spans = trial.spans.iter();
        spans
            .filter(|(span, _)| span.operation.kind() == layer && (span.pass == Pass::Backward) == backward)
            .map(|(_, (_, ms))| ms)
            .sum()
    };
    let undivided = |value: fn(&Trial) -> f64| profiled.iter().map(|trial| [value(trial), 0.0]).collect();
    let mut kinds: Vec<KindTime> = LayerKind::ALL
        .into_iter()
        .map(|layer| {
            let trials = profiled.iter();
            kind(
                layer.name(),
                trials
                    .map(|trial| [false, true].map(|backward| of_kind(trial, layer, backward)))
                    .collect(),
            )
        })
        .collect();
    if is_asynchronous {
        kinds.push(kind(IDLE, undivided(|trial| trial.idle_ms)));
    }
    kinds.push(kind(REST, undivided(|trial| trial.rest_ms)));
    let spans: BTreeSet<Span> = profiled.iter().flat_map(|trial| trial.spans.keys().copied()).collect();
    let operation = |span: &Span| {
        let found = |trial: &&Trial| trial.spans.get(span).copied().unwrap_or_default();
        let trials_ms: Vec<f64> = profiled.iter().map(|trial| found(trial).1).collect();
        let count = middle(profiled.iter().map(|trial| found(trial).0 as f64));
        let batch = &plan.batch;
        let cost = span.cost(
            &plan.model,
            batch.micro_batch,
            batch.seq,
            plan.machine.backend.stored(plan.machine.precision),
        );
        OperationTime {
            name: span.operation.name().to_owned(),
            kind: span.operation.kind().name().to_owned(),
            pass: span.pass.name().to_owned(),
            count,
            ms: middle(trials_ms.iter().copied()),
            std_ms: spread(trials_ms.iter().copied()),
            trials_ms,
            flop: count * cost.flop,
            bytes: count * cost.bytes,
            ..OperationTime::default()
        }
    };
    let profiled_ms: Vec<f64> = profiled.iter().map(|trial| trial.ms).collect();
    let flops_per_token = gpt2_model::cost::flops_per_token(&plan.model, plan.batch.seq);
    Profile {
        trials: profiled.len(),
        unprofiled_step_ms,
        profiled_step_ms: Summary::of(&profiled_ms).unwrap_or_default(),
        flop_per_step: (flops_per_token * plan.tokens_per_step()) as f64,
        kinds,
        operations: spans.iter().map(operation).collect(),
        ..Profile::default()
    }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(&values.collect::<Vec<_>>()).unwrap_or_default()
}

fn spread(values: impl Iterator<Item = f64>) -> f64 {
    Summary::of(&values.collect::<Vec<_>>()).unwrap_or_default().std
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_records::warmup_steps;

    #[test]
    fn the_steps_before_the_first_trial_are_those_of_the_one_rule() {
        let profiling = Profiling {
            trials: 10,
            trace: false,
            recording: None,
        };
        assert_eq!(warmup_steps(profiling.steps() as usize) as u64, WARMUP);
    }
}
