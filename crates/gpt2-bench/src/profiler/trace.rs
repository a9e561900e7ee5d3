//! A trace in Chrome's event format, which Perfetto opens: what the host queued and what the device did, in lanes.

use super::timeline::{Mark, Point};
use serde::Serialize;
use std::time::Instant;

const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// A trace.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trace {
    display_time_unit: &'static str,
    trace_events: Vec<Event>,
}

/// An event: "X" has a duration, "M" names a lane.
#[derive(Debug, PartialEq, Serialize)]
struct Event {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    ph: &'static str,
    /// Microseconds.
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Named>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Named {
    name: &'static str,
}

impl Trace {
    /// The trace of a run whose marks are these.
    pub(super) fn of(marks: &[Mark]) -> Self {
        let lane = |tid, name| Event {
            name: "thread_name".to_owned(),
            cat: None,
            ph: "M",
            ts: 0.0,
            dur: None,
            pid: 1,
            tid,
            args: Some(Named { name }),
        };
        let mut trace_events = vec![lane(HOST, "host: queues"), lane(DEVICE, "device: computes")];
        if let Some(first) = marks.first() {
            let host = |mark: &Mark| mark.host;
            let device = |mark: &Mark| mark.device.at;
            let start = first.host.min(first.device.at);
            slices(&mut trace_events, marks, HOST, start, host);
            slices(&mut trace_events, marks, DEVICE, start, device);
        }
        Self {
            display_time_unit: "ms",
            trace_events,
        }
    }
}

/// Steps and spans of one lane. Slices within a slice are drawn below it.
fn slices(events: &mut Vec<Event>, marks: &[Mark], tid: u32, start: Instant, at: impl Fn(&Mark) -> Instant) {
    let micros = |instant: Instant| 1e6 * instant.saturating_duration_since(start).as_secs_f64();
    let slice = |name: String, cat, from: Instant, to: Instant| Event {
        name,
        cat: Some(cat),
        ph: "X",
        ts: micros(from),
        dur: Some(micros(to) - micros(from)),
        pid: 1,
        tid,
        args: None,
    };
    let (mut step, mut span) = (None, None);
    for mark in marks {
        let now = at(mark);
        match mark.point {
            Point::Step(number) => {
                if let Some((number, from)) = step.replace((number, now)) {
                    events.push(slice(format!("step {number}"), "step", from, now));
                }
            }
            Point::Begins(begun) => span = Some((begun, now)),
            Point::Ends => {
                if let Some((ended, from)) = span.take() {
                    let name = format!("{}, {}", ended.operation, ended.pass.name());
                    events.push(slice(name, ended.operation.kind().name(), from, now));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_model::ops::training::Passed;
    use gpt2_model::spans::{Operation, Pass, Span};
    use std::time::Duration;

    #[test]
    fn host_and_device_have_a_lane_each() {
        let start = Instant::now();
        let mark = |point, host: u64, device: u64| Mark {
            point,
            host: start + Duration::from_micros(host),
            device: Passed {
                queued: start + Duration::from_micros(host),
                at: start + Duration::from_micros(device),
            },
        };
        let span = Span {
            operation: Operation::Qkv,
            pass: Pass::Forward,
        };
        let trace = Trace::of(&[
            mark(Point::Step(4), 0, 0),
            mark(Point::Begins(span), 1, 10),
            mark(Point::Ends, 2, 30),
            mark(Point::Step(5), 3, 31),
        ]);
        let json = serde_json::to_value(&trace).unwrap();
        let events = json["traceEvents"].as_array().unwrap();
        let found: Vec<_> = events
            .iter()
            .filter(|event| event["ph"] == "X")
            .map(|event| {
                let number = |key: &str| event[key].as_f64().unwrap().round() as u64;
                (
                    number("tid"),
                    event["name"].as_str().unwrap(),
                    number("ts"),
                    number("dur"),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (1, "qkv, forward", 1, 1),
                (1, "step 4", 0, 3),
                (2, "qkv, forward", 10, 20),
                (2, "step 4", 0, 31)
            ]
        );
        assert_eq!(events[0]["args"]["name"], "host: queues");
    }
}
