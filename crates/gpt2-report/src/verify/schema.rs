//! The fields of `training_metrics.json`, schema 2.0, and their types.

use super::Check;
use serde_json::Value;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// RFC 3339.
    Time,
    Number,
    Count,
    Object,
    List,
}

impl Kind {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Time => value.as_str().is_some_and(is_time),
            Self::Number => value.is_number(),
            Self::Count => value.is_u64(),
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "a time such as 2026-01-31T12:00:00Z",
            Self::Number => "a number",
            Self::Count => "a whole number from 0",
            Self::Object => "an object",
            Self::List => "a list",
        }
    }
}

/// Whether the field may be null, where it has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Null {
    Never,
    Allowed,
}

use Kind::{Count, List, Number, Object, Text, Time};
use Null::{Allowed, Never};

/// Every field of schema 2.0. `[]` stands for each item of a list.
const FIELDS: [(&str, Kind, Null); 69] = [
    ("schema_version", Text, Never),
    ("run_id", Text, Never),
    ("timestamp_utc", Time, Never),
    ("git_commit", Text, Allowed),
    ("command_line", Text, Never),
    ("env", Object, Never),
    ("host", Object, Never),
    ("host.hostname", Text, Allowed),
    ("host.os", Text, Allowed),
    ("hardware", Object, Never),
    ("hardware.gpu_name", Text, Allowed),
    ("hardware.gpu_count_visible", Count, Allowed),
    ("hardware.world_size", Count, Never),
    ("hardware.cuda_version", Text, Allowed),
    ("hardware.cluster", Text, Allowed),
    ("training_config", Object, Never),
    ("training_config.model_name", Text, Never),
    ("training_config.model_size", Count, Never),
    ("training_config.seq_len", Count, Never),
    ("training_config.epochs", Number, Never),
    ("training_config.micro_batch_size_per_gpu", Count, Never),
    ("training_config.grad_accum_steps", Count, Never),
    ("training_config.global_batch_size", Count, Never),
    ("training_config.lr", Number, Never),
    ("training_config.optimizer", Text, Never),
    ("training_config.precision", Text, Never),
    ("training_config.dataset_name", Text, Never),
    ("training_config.dataset_subset_sizes", Object, Never),
    ("training_config.dataset_subset_sizes.train", Count, Never),
    ("training_config.dataset_subset_sizes.val", Count, Never),
    ("epochs", List, Never),
    ("epochs[]", Object, Never),
    ("epochs[].epoch_idx", Count, Never),
    ("epochs[].epoch_wall_time_sec", Number, Never),
    ("epochs[].micro_steps", Count, Never),
    ("epochs[].optimizer_steps", Count, Never),
    ("epochs[].tokens_processed_global", Count, Never),
    ("epochs[].tokens_per_sec_global", Number, Allowed),
    ("epochs[].train_loss_avg_global", Number, Allowed),
    ("epochs[].val_loss_avg_global", Number, Allowed),
    ("epochs[].max_cuda_mem_allocated_bytes_rank0", Count, Allowed),
    ("epochs[].max_cuda_mem_allocated_bytes_global", Count, Allowed),
    ("epochs[].max_cuda_mem_reserved_bytes_rank0", Count, Allowed),
    ("epochs[].max_cuda_mem_reserved_bytes_global", Count, Allowed),
    ("epochs[].step_time_mean_sec", Number, Allowed),
    ("epochs[].step_time_p50_sec", Number, Allowed),
    ("epochs[].step_time_p95_sec", Number, Allowed),
    ("epochs[].dataload_time_mean_sec", Number, Allowed),
    ("summary", Object, Never),
    ("summary.total_wall_time_sec", Number, Never),
    ("summary.best_val_loss", Number, Allowed),
    ("summary.mean_tokens_per_sec_global", Number, Allowed),
    ("completion", Object, Allowed),
    ("completion.run_complete_file", Text, Never),
    ("completion.timestamp_utc", Time, Never),
    ("scheduler", Object, Never),
    ("scheduler.type", Text, Allowed),
    ("scheduler.job_id", Text, Allowed),
    ("scheduler.nodelist", Text, Allowed),
    ("scheduler.nnodes", Count, Allowed),
    ("scheduler.procid", Count, Allowed),
    ("scheduler.localid", Count, Allowed),
    ("scheduler.gpus", Text, Allowed),
    ("scheduler.partition", Text, Allowed),
    // Ours, on which the other checks stand.
    ("burn_version", Text, Never),
    ("backend", Text, Never),
    ("flops_per_token", Count, Never),
    ("phases", Object, Never),
    ("losses", List, Never),
];

/// Reports each field that is missing or of another type. True if there is none.
pub(super) fn check(check: &mut Check<'_>, metrics: &Value) -> bool {
    let before = check.findings.len();
    for (path, kind, null) in FIELDS {
        check_field(check, metrics, "", path, kind, null);
    }
    if check.findings.len() == before
        && let Some(version) = metrics["schema_version"].as_str()
    {
        check.equal("schema_version", version, "2.0");
    }
    check.findings.len() == before
}

/// Follows `path` from `value`, which stands at `at`, and looks at what is there. What is missing above is reported
/// once, for the field that is missing.
fn check_field(check: &mut Check<'_>, value: &Value, at: &str, path: &str, kind: Kind, null: Null) {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    if let Some(list) = step.strip_suffix("[]") {
        let items = value.get(list).and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let at = format!("{at}{list}[{index}]");
            if rest.is_empty() {
                check_value(check, item, &at, kind, null);
            } else if item.is_object() {
                check_field(check, item, &format!("{at}."), rest, kind, null);
            }
        }
        return;
    }
    let here = format!("{at}{step}");
    match value.get(step) {
        None if rest.is_empty() => check.report(here, "missing", kind.words()),
        Some(found) if rest.is_empty() => check_value(check, found, &here, kind, null),
        Some(found) if found.is_object() => check_field(check, found, &format!("{here}."), rest, kind, null),
        _ => {}
    }
}

fn check_value(check: &mut Check<'_>, value: &Value, at: &str, kind: Kind, null: Null) {
    if kind.holds(value) || (value.is_null() && null == Allowed) {
        return;
    }
    let or_null = if null == Allowed { ", or null" } else { "" };
    check.report(at, value, format!("{}{or_null}", kind.words()));
}

/// Whether `text` is a time as RFC 3339 writes it, in UTC.
pub(super) fn is_time(text: &str) -> bool {
    humantime::parse_rfc3339(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Finding;
    use crate::verify::example::training_metrics;
    use serde_json::json;
    use std::path::PathBuf;

    fn findings(metrics: &Value) -> Vec<String> {
        let mut findings: Vec<Finding> = Vec::new();
        check(&mut Check::new(PathBuf::from("m.json"), &mut findings), metrics);
        findings.iter().map(ToString::to_string).collect()
    }

    /// Takes the field out, of the first item of a list.
    fn remove(value: &mut Value, path: &str) {
        let pointer = format!("/{}", path.replace("[].", "/0/").replace('.', "/"));
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().remove(name).unwrap();
    }

    #[test]
    fn what_the_trainer_writes_has_every_field() {
        assert_eq!(
            findings(&serde_json::to_value(training_metrics()).unwrap()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_missing_field_is_named() {
        for (path, kind, _) in FIELDS {
            if path == "epochs[]" {
                continue;
            }
            let mut metrics = serde_json::to_value(training_metrics()).unwrap();
            remove(&mut metrics, path);
            let name = path.replace("[]", "[0]");
            assert_eq!(
                findings(&metrics),
                [format!("m.json: `{name}` is missing, expected {}", kind.words())]
            );
        }
    }

    #[test]
    fn a_field_of_another_type_is_told() {
        let mut metrics = serde_json::to_value(training_metrics()).unwrap();
        metrics["training_config"]["lr"] = json!("0.1");
        metrics["hardware"]["world_size"] = json!(null);
        metrics["hardware"]["gpu_name"] = json!(3);
        metrics["epochs"][0]["micro_steps"] = json!(-1);
        metrics["timestamp_utc"] = json!("yesterday");
        assert_eq!(
            findings(&metrics),
            [
                "m.json: `timestamp_utc` is \"yesterday\", expected a time such as 2026-01-31T12:00:00Z",
                "m.json: `hardware.gpu_name` is 3, expected text, or null",
                "m.json: `hardware.world_size` is null, expected a whole number from 0",
                "m.json: `training_config.lr` is \"0.1\", expected a number",
                "m.json: `epochs[0].micro_steps` is -1, expected a whole number from 0",
            ]
        );
        let mut other = serde_json::to_value(training_metrics()).unwrap();
        other["schema_version"] = json!("1.0");
        assert_eq!(findings(&other), ["m.json: `schema_version` is 1.0, expected 2.0"]);
        other["completion"] = json!(null);
        other["schema_version"] = json!("2.0");
        assert_eq!(findings(&other), Vec::<String>::new());
    }
}
