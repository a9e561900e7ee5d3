//! Reports of runs.

use crate::made_up;
use gpt2_report::{ReportError, RunFigures, RunRecords, run_report, runs_page};
use std::fs;
use tempfile::tempdir;

#[test]
fn several_runs_make_one_report() {
    let dir = tempdir().unwrap();
    made_up::write_runs(dir.path()).unwrap();
    let runs = ["short", "long", "on-its-way"].map(|name| RunRecords::read(&dir.path().join(name)).unwrap());
    // The torn last line is left out, and a run on its way has no summary.
    assert_eq!(runs[2].records.len(), 701);
    assert!(runs[2].metrics.is_none());
    let out = dir.path().join("report");
    run_report(&out, &runs).unwrap();
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let (markdown, page) = (read("report.md"), read("index.html"));
    for text in ["| short", "| long", "| on-its-way", "on its way", "figures/loss.svg"] {
        assert!(markdown.contains(text), "{text}\n{markdown}");
    }
    assert_eq!(page.matches("<svg").count(), 3);
    for figure in ["loss", "throughput", "memory"] {
        for ending in ["svg", "png"] {
            assert!(
                out.join("figures").join(figure).with_extension(ending).is_file(),
                "{figure}.{ending}"
            );
        }
    }
}

#[test]
fn figures_of_a_run_leave_out_the_warm_up() {
    let dir = tempdir().unwrap();
    made_up::write_runs(dir.path()).unwrap();
    let figures = RunFigures::new(&RunRecords::read(&dir.path().join("short")).unwrap());
    assert_eq!(
        (figures.state, figures.steps, figures.tokens),
        ("finished", 300, 300 * 8192)
    );
    assert_eq!(figures.model.as_deref(), Some("gpt2-124m (made up)"));
    // Steps of 110 to 118 ms, the first four of 900 ms.
    assert!(figures.step_p95_ms.unwrap() < 120.0 && figures.tokens_per_sec.unwrap() > 8192.0 / 0.12);
    assert_eq!(figures.peak_memory_bytes, Some(14 << 30));
}

#[test]
fn a_run_that_has_just_begun_has_a_page() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "").unwrap();
    let run = RunRecords::read(dir.path()).unwrap();
    let page = runs_page(&[run], Some(5)).unwrap();
    assert!(page.contains("<meta http-equiv=\"refresh\" content=\"5\">"), "{page}");
    assert!(page.contains("on its way") && !page.contains("<svg"));
    assert!(!runs_page(&[], None).unwrap().contains("http-equiv=\"refresh\""));
}

#[test]
fn losses_that_are_not_finite_break_the_line() {
    let dir = tempdir().unwrap();
    let log =
        "{\"step\":1,\"loss\":9.0}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":8.0}\n{\"step\":4,\"loss\":7.5}\n";
    fs::write(dir.path().join("metrics.jsonl"), log).unwrap();
    let mut run = RunRecords::read(dir.path()).unwrap();
    run.records[1].loss = Some(f64::NAN);
    run_report(&dir.path().join("report"), &[run]).unwrap();
    let svg = fs::read_to_string(dir.path().join("report/figures/loss.svg")).unwrap();
    assert!(!svg.contains("NaN"));
}

#[test]
fn runs_of_one_name_are_told_apart() {
    let dir = tempdir().unwrap();
    for study in ["a", "b"] {
        made_up::write_runs(&dir.path().join(study)).unwrap();
    }
    let runs = ["a", "b"].map(|study| RunRecords::read(&dir.path().join(study).join("short")).unwrap());
    run_report(&dir.path().join("out"), &runs).unwrap();
    let markdown = fs::read_to_string(dir.path().join("out/report.md")).unwrap();
    assert!(
        markdown.contains("| a/short") && markdown.contains("| b/short"),
        "{markdown}"
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let dir = tempdir().unwrap();
    let error = RunRecords::read(dir.path()).unwrap_err();
    assert!(
        matches!(error, ReportError::NoRun { .. }) && error.to_string().contains("metrics.jsonl"),
        "{error}"
    );

    fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\n{\"step\":\n").unwrap();
    let error = RunRecords::read(dir.path()).unwrap_err();
    assert!(
        matches!(error, ReportError::Record(_)) && error.to_string().contains("metrics.jsonl:2"),
        "{error}"
    );

    fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\n").unwrap();
    fs::write(dir.path().join("training_metrics.json"), "{}").unwrap();
    let error = RunRecords::read(dir.path()).unwrap_err();
    assert!(matches!(error, ReportError::NotTrainingMetrics { .. }), "{error}");

    assert!(matches!(run_report(dir.path(), &[]), Err(ReportError::NoRuns)));
}
