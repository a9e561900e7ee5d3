//! What bounds an operation, and what can be done about it.

use gpt2_records::{Ceilings, KindTime, OperationTime};

/// The bound of an operation that comes to less than this share of both ceilings: what it takes is neither arithmetic of
/// products nor memory, but launches, waiting, or other arithmetic.
const LATENCY_BELOW: f64 = 0.25;

/// Share of the step above which an operation or a kind is worth advice.
const WORTH_ADVICE: f64 = 0.05;

/// The ceiling that an operation comes nearest to, and the share of it.
pub(super) fn bound(flop: f64, bytes: f64, ms: f64, ceilings: &Ceilings) -> (&'static str, f64) {
    let [of_products, of_memory] = ceilings.shares(flop, bytes, ms);
    let (name, nearest) = if of_products >= of_memory {
        ("products", of_products)
    } else {
        ("memory", of_memory)
    };
    if nearest < LATENCY_BELOW {
        ("latency", nearest)
    } else {
        (name, nearest)
    }
}

/// What helps against each bound.
const REMEDIES: [(&str, &str); 3] = [
    (
        "products",
        "Near to the ceiling only a narrower `precision` or a smaller model helps; far from it a larger `batch`, whose \
         products are larger.",
    ),
    (
        "memory",
        "A narrower `precision` moves fewer bytes; a larger `batch` moves as many for each token.",
    ),
    (
        "latency",
        "On a GPU these wait for launches, and a larger `batch` fills it; on a CPU they are arithmetic other than products.",
    ),
];

/// What to do about what takes the most time.
pub(super) fn advice(kinds: &[KindTime], operations: &[OperationTime], step_ms: f64) -> Vec<String> {
    let mut said = Vec::new();
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let of = |name: &str| {
        kinds
            .iter()
            .find(|kind| kind.kind == name)
            .map_or(0.0, |kind| kind.share)
    };
    if of(IDLE) > WORTH_ADVICE {
        said.push(format!(
            "The device is idle for {} of the step, waiting for the host to queue work: a larger `batch` gives each launch \
             more to do.",
            percent(of(IDLE))
        ));
    }
    if of("data") > WORTH_ADVICE {
        said.push(format!(
            "Data takes {} of the step: raise `prefetch`, or put the shards on a faster disk.",
            percent(of("data"))
        ));
    }
    if of("optimizer") > 2.0 * WORTH_ADVICE {
        said.push(format!(
            "The optimizer takes {} of the step, whatever the batch: a larger `batch` or `grad-accum` spreads it over more \
             tokens.",
            percent(of("optimizer"))
        ));
    }
    if of(REST) > 0.03 {
        said.push(format!(
            "{} of the step belongs to no operation: the table is not the whole story.",
            percent(of(REST))
        ));
    }
    let in_step = |operation: &&OperationTime| !matches!(&*operation.kind, "data" | "optimizer");
    for (bound_by, remedy) in REMEDIES {
        let mut bound: Vec<&OperationTime> = operations
            .iter()
            .filter(in_step)
            .filter(|operation| operation.bound_by == bound_by && operation.of_ceiling > 0.0)
            .collect();
        let share = bound.iter().map(|operation| operation.ms).sum::<f64>() / step_ms;
        if share < WORTH_ADVICE {
            continue;
        }
        bound.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let longest: Vec<String> = bound
            .iter()
            .take(3)
            .map(|operation| {
                let of = percent(operation.of_ceiling);
                format!("{} ({}) at {of}", operation.name, operation.pass)
            })
            .collect();
        said.push(format!(
            "Bound by {bound_by}: {} of the step, above all {} of that ceiling. {remedy}",
            percent(share),
            longest.join(", ")
        ));
    }
    said
}

/// The kind of time in which the device had nothing to do.
pub(super) const IDLE: &str = "device idle";

/// The kind of time that belongs to no operation.
pub(super) const REST: &str = "rest";

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings {
        product_flops: 1e12,
        product_side: 2048,
        bytes_per_sec: 1e11,
    };

    #[test]
    fn an_operation_is_bound_by_the_ceiling_that_it_is_nearest_to() {
        // 1 ms: 0.8 of 1 TFLOP/s, and 0.1 of 100 GB/s.
        assert_eq!(bound(0.8e9, 1e7, 1.0, &CEILINGS).0, "products");
        assert_eq!(bound(0.1e9, 6e7, 1.0, &CEILINGS).0, "memory");
        let (name, share) = bound(0.2e9, 1e7, 1.0, &CEILINGS);
        assert_eq!(name, "latency");
        assert!((share - 0.2).abs() < 1e-12);
        assert_eq!(bound(0.0, 0.0, 0.0, &CEILINGS), ("latency", 0.0));
    }

    fn kind(name: &str, share: f64) -> KindTime {
        KindTime {
            kind: name.to_owned(),
            share,
            ..KindTime::default()
        }
    }

    fn operation(name: &str, bound_by: &str, of_ceiling: f64, ms: f64) -> OperationTime {
        OperationTime {
            name: name.to_owned(),
            kind: "feed-forward".to_owned(),
            pass: "forward".to_owned(),
            bound_by: bound_by.to_owned(),
            of_ceiling,
            ms,
            ..OperationTime::default()
        }
    }

    #[test]
    fn advice_follows_from_the_bound() {
        let kinds = [
            kind(IDLE, 0.2),
            kind("data", 0.01),
            kind("optimizer", 0.11),
            kind(REST, 0.01),
        ];
        let operations = [
            operation("short", "memory", 0.9, 1.0),
            operation("copied", "memory", 0.8, 10.0),
            operation("multiplied", "products", 0.9, 30.0),
            operation("softmax", "latency", 0.1, 20.0),
        ];
        let said = advice(&kinds, &operations, 100.0);
        let begins: Vec<&str> = said.iter().map(|line| line.split([',', ':']).next().unwrap()).collect();
        assert_eq!(
            begins,
            [
                "The device is idle for 20 % of the step",
                "The optimizer takes 11 % of the step",
                "Bound by products",
                "Bound by memory",
                "Bound by latency"
            ]
        );
        assert!(
            said[2].starts_with(
                "Bound by products: 30 % of the step, above all multiplied (forward) at 90 % of that ceiling."
            ),
            "{}",
            said[2]
        );
        assert!(
            said[3].contains("copied (forward) at 80 %, short (forward) at 90 %"),
            "{}",
            said[3]
        );
    }
}
