//! Marks what passes on the thread that trains, in every other step.

use super::timeline::{Mark, Point};
use gpt2_counters::{CounterSource, Counts, PerfEvents};
use gpt2_model::ops::training::{DeviceTimer, TimerError};
use gpt2_model::spans::{LayerKind, Span, SpanObserver, observe};
use gpt2_train::observer::{Observer, StepReport};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Which steps are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trials {
    /// Steps before all others.
    pub(super) warmup: u64,
    /// Profiled steps, each behind one that is not.
    pub(super) profiled: u64,
    /// Steps behind those, in which counters run.
    pub(super) counted: u64,
}

impl Trials {
    /// Steps of the run: the last one ends the one before.
    pub(super) fn steps(self) -> u64 {
        self.warmup + 2 * self.profiled + self.counted + 1
    }

    fn is_profiled(self, step: u64) -> bool {
        step > self.warmup && step <= self.warmup + 2 * self.profiled && (step - self.warmup).is_multiple_of(2)
    }

    fn is_counted(self, step: u64) -> bool {
        step > self.warmup + 2 * self.profiled && step < self.steps()
    }

    /// Whether a step's time is to be compared with those of profiled ones.
    pub(super) fn is_plain(self, step: u64) -> bool {
        step > self.warmup && step <= self.warmup + 2 * self.profiled && !self.is_profiled(step)
    }
}

/// What is recorded, shared between the observer of the run, that of the spans, and whoever reads it.
#[derive(Clone)]
pub(super) struct Recorder(Arc<Mutex<Recorded>>);

struct Recorded {
    trials: Trials,
    timer: Box<dyn DeviceTimer>,
    points: Vec<(Point, Instant)>,
    counters: Option<PerfEvents>,
    /// Of the counted step that is going on, by kind.
    counts: BTreeMap<LayerKind, Counts>,
    counted: Vec<BTreeMap<LayerKind, Counts>>,
    /// The kind whose counts are running.
    counting: Option<LayerKind>,
    counter_error: Option<String>,
}

impl Recorder {
    pub(super) fn new(trials: Trials, timer: Box<dyn DeviceTimer>, counters: Option<PerfEvents>) -> Self {
        Self(Arc::new(Mutex::new(Recorded {
            trials,
            timer,
            points: Vec::new(),
            counters,
            counts: BTreeMap::new(),
            counted: Vec::new(),
            counting: None,
            counter_error: None,
        })))
    }

    /// Whether the device computes behind the host.
    pub(super) fn is_asynchronous(&self) -> bool {
        self.lock().timer.is_asynchronous()
    }

    /// The marks, once the run has ended.
    pub(super) fn marks(&self) -> Result<Vec<Mark>, TimerError> {
        let mut recorded = self.lock();
        let passed = recorded.timer.take()?;
        let points = std::mem::take(&mut recorded.points);
        Ok(points
            .into_iter()
            .zip(passed)
            .map(|((point, host), device)| Mark { point, host, device })
            .collect())
    }

    /// The counts of each counted step by kind, or why there are none.
    pub(super) fn counts(&self) -> Result<Vec<BTreeMap<LayerKind, Counts>>, String> {
        let mut recorded = self.lock();
        match recorded.counter_error.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut recorded.counted)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    fn mark(&mut self, point: Point) {
        self.points.push((point, Instant::now()));
        self.timer.mark();
    }
}

impl Observer for Recorder {
    fn step_begins(&mut self, step: u64) {
        let mut recorded = self.lock();
        let trials = recorded.trials;
        if !recorded.counts.is_empty() {
            let counts = std::mem::take(&mut recorded.counts);
            recorded.counted.push(counts);
        }
        recorded.mark(Point::Step(step));
        drop(recorded);
        if trials.is_profiled(step) {
            observe(Some(Box::new(Timed(self.clone()))));
        } else if trials.is_counted(step) {
            observe(Some(Box::new(Counted(self.clone()))));
        } else {
            observe(None);
        }
    }

    fn step(&mut self, _: &StepReport) {}
}

/// Marks spans.
struct Timed(Recorder);

impl SpanObserver for Timed {
    fn begins(&mut self, span: Span) {
        self.0.lock().mark(Point::Begins(span));
    }

    fn ends(&mut self) {
        self.0.lock().mark(Point::Ends);
    }
}

/// Counts in the spans of attention and of the feed-forward half.
struct Counted(Recorder);

impl SpanObserver for Counted {
    fn begins(&mut self, span: Span) {
        let kind = span.operation.kind();
        if !matches!(kind, LayerKind::Attention | LayerKind::FeedForward) {
            return;
        }
        let mut recorded = self.0.lock();
        if let Some(counters) = &mut recorded.counters {
            match counters.start() {
                Ok(()) => recorded.counting = Some(kind),
                Err(error) => recorded.counter_error = Some(error.to_string()),
            }
        }
    }

    fn ends(&mut self) {
        let mut recorded = self.0.lock();
        let (Some(kind), Some(counters)) = (recorded.counting.take(), &mut recorded.counters) else {
            return;
        };
        match counters.stop() {
            Ok(counts) => {
                recorded
                    .counts
                    .entry(kind)
                    .and_modify(|sum| sum.add(&counts))
                    .or_insert(counts);
            }
            Err(error) => recorded.counter_error = Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_step_is_profiled() {
        let trials = Trials {
            warmup: 2,
            profiled: 2,
            counted: 1,
        };
        assert_eq!(trials.steps(), 8);
        let steps = |is: fn(Trials, u64) -> bool| {
            (1..=trials.steps())
                .filter(|&step| is(trials, step))
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(Trials::is_plain), [3, 5]);
        assert_eq!(steps(Trials::is_profiled), [4, 6]);
        assert_eq!(steps(Trials::is_counted), [7]);
    }
}
