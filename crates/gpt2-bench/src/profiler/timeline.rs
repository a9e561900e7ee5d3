//! From the marks of a run to what each profiled step was made of.

use gpt2_model::ops::training::Passed;
use gpt2_model::spans::Span;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A point of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// A step begins, and the one before has been queued.
    Step(u64),
    /// A span begins.
    Begins(Span),
    /// The newest span ends.
    Ends,
}

/// A point, when the host came by, and when the device did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) point: Point,
    pub(super) host: Instant,
    pub(super) device: Passed,
}

/// A step between two marks of [`Point::Step`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Trial {
    /// Its number.
    pub(super) step: u64,
    /// Milliseconds from its begin to that of the next.
    pub(super) ms: f64,
    /// How often it has each span, and the milliseconds of all of them. Empty where it was not profiled.
    pub(super) spans: BTreeMap<Span, (u64, f64)>,
    /// Milliseconds in which the device had nothing to do, since the host had queued nothing.
    pub(super) idle_ms: f64,
    /// Milliseconds outside of spans in which it was not idle.
    pub(super) rest_ms: f64,
}

/// What two marks with nothing between them cost the device: a twentieth of the gaps between the end of a span and the begin
/// of the next are shorter.
pub(super) fn cost_of_marks(marks: &[Mark]) -> Duration {
    let mut gaps: Vec<Duration> = marks
        .array_windows()
        .filter(|[a, b]| a.point == Point::Ends && matches!(b.point, Point::Begins(_)))
        .map(|[a, b]| b.device.at.saturating_duration_since(a.device.at))
        .collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 20).copied().unwrap_or_default()
}

/// The steps of `marks`, without what comes behind the last mark of a step. On a device that computes behind the host,
/// which `is_asynchronous`, time outside of spans is idle until the next mark is queued. What the marks cost, `of_marks` a
/// gap, is in no part of a step.
pub(super) fn trials(marks: &[Mark], is_asynchronous: bool, of_marks: Duration) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut open: Option<(Trial, Instant)> = None;
    let mut span: Option<(Span, Instant)> = None;
    // When the device was done with the newest of the work that has a name.
    let mut done_at: Option<Instant> = None;
    for mark in marks {
        let Passed { queued, at } = mark.device;
        let outside = |trial: &mut Trial| {
            let Some(done_at) = done_at else { return };
            let gap = (at - done_at).saturating_sub(of_marks);
            let idle = if is_asynchronous {
                queued.saturating_duration_since(done_at).min(gap)
            } else {
                Duration::ZERO
            };
            trial.idle_ms += ms(idle);
            trial.rest_ms += ms(gap.saturating_sub(idle));
        };
        match mark.point {
            Point::Step(step) => {
                if let Some((mut trial, began)) = open.take() {
                    trial.ms = ms(at - began);
                    if trial.spans.is_empty() {
                        (trial.idle_ms, trial.rest_ms) = (0.0, 0.0);
                    } else {
                        outside(&mut trial);
                    }
                    trials.push(trial);
                }
                let trial = Trial {
                    step,
                    ..Trial::default()
                };
                open = Some((trial, at));
                done_at = Some(at);
            }
            Point::Begins(begun) => {
                if let Some((trial, _)) = &mut open {
                    outside(trial);
                }
                span = Some((begun, at));
            }
            Point::Ends => {
                if let (Some((trial, _)), Some((ended, began))) = (&mut open, span.take()) {
                    let (count, total) = trial.spans.entry(ended).or_default();
                    *count += 1;
                    *total += ms(at - began);
                }
                done_at = Some(at);
            }
        }
    }
    trials
}

fn ms(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_model::spans::{Operation, Pass};

    const QKV: Span = Span {
        operation: Operation::Qkv,
        pass: Pass::Forward,
    };

    /// Points with the milliseconds at which they were queued and passed.
    fn marks(points: &[(Point, u64, u64)]) -> Vec<Mark> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mark = |&(point, queued, passed)| Mark {
            point,
            host: at(queued),
            device: Passed {
                queued: at(queued),
                at: at(passed),
            },
        };
        points.iter().map(mark).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    fn a_device_is_idle_until_the_host_has_queued_the_next() {
        let found = trials(
            &marks(&[
                (Point::Step(1), 0, 0),
                // Queued in time: what lies before is work without a name.
                (Point::Begins(QKV), 0, 2),
                (Point::Ends, 1, 12),
                // Queued 5 ms after the device was done; 1 ms more has no name.
                (Point::Begins(QKV), 17, 18),
                (Point::Ends, 18, 28),
                (Point::Step(2), 19, 29),
                (Point::Step(3), 40, 60),
                (Point::Begins(QKV), 41, 61),
            ]),
            true,
            Duration::ZERO,
        );
        let [profiled, plain] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((profiled.step, plain.step), (1, 2));
        assert_eq!(profiled.spans[&QKV].0, 2);
        close(profiled.spans[&QKV].1, 20.0);
        close(profiled.idle_ms, 5.0);
        close(profiled.rest_ms, 4.0);
        close(profiled.ms, 29.0);
        close(plain.ms, 31.0);
        assert!(plain.spans.is_empty());
        close(plain.idle_ms + plain.rest_ms, 0.0);
    }

    #[test]
    fn a_device_that_is_waited_for_is_never_seen_idle() {
        let points = [
            (Point::Step(1), 0, 0),
            (Point::Begins(QKV), 5, 5),
            (Point::Ends, 9, 9),
            (Point::Step(2), 10, 10),
        ];
        let found = trials(&marks(&points), false, Duration::ZERO);
        close(found[0].idle_ms, 0.0);
        close(found[0].rest_ms, 6.0);
        close(found[0].spans[&QKV].1, 4.0);
    }

    #[test]
    fn what_marks_cost_is_in_no_part() {
        // 2 ms a gap: three spans of 12 ms, 3 ms of something else before the last.
        let marks = marks(&[
            (Point::Step(1), 0, 0),
            (Point::Begins(QKV), 0, 2),
            (Point::Ends, 0, 14),
            (Point::Begins(QKV), 0, 16),
            (Point::Ends, 0, 28),
            (Point::Begins(QKV), 0, 33),
            (Point::Ends, 0, 45),
            (Point::Step(2), 0, 47),
        ]);
        let cost = cost_of_marks(&marks);
        assert_eq!(cost, Duration::from_millis(2));
        let found = trials(&marks, true, cost);
        close(found[0].spans[&QKV].1, 36.0);
        close(found[0].rest_ms, 3.0);
        close(found[0].ms, 47.0);
    }
}
