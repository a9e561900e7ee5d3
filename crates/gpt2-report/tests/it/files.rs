//! The files of a study.

use crate::made_up;
use gpt2_records::StudyKind;
use gpt2_report::{ReportError, read_study, write_study};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

#[test]
fn every_kind_leaves_its_files_and_comes_back() {
    for (name, study) in made_up::studies() {
        let dir = tempdir().unwrap();
        let dir = dir.path().join("studies").join(name);
        write_study(&dir, &study).unwrap();
        for file in ["results.json", "results.csv", "results.md", "index.html"] {
            assert!(fs::metadata(dir.join(file)).unwrap().len() > 100, "{name}/{file}");
        }
        let figures = gpt2_report::figures::study_figures(&study);
        assert!(figures.len() >= 3, "{name}");
        for figure in &figures {
            for ending in ["svg", "png"] {
                let file = dir.join("figures").join(figure.name()).with_extension(ending);
                assert!(fs::metadata(&file).unwrap().len() > 500, "{}", file.display());
            }
        }
        assert_eq!(read_study(&dir).unwrap(), study, "{name}");
        // Written once more over themselves, as after each row.
        write_study(&dir, &study).unwrap();
    }
}

#[test]
fn numbers_that_are_not_finite_come_back_as_such() {
    let dir = tempdir().unwrap();
    let mut study = made_up::fixed_work();
    study.rows[0].derived = Some(made_up::not_finite());
    study.rows[0].figures.as_mut().unwrap().losses = vec![10.5, f64::NAN];
    write_study(dir.path(), &study).unwrap();
    let read = read_study(dir.path()).unwrap();
    let derived = read.rows[0].derived.unwrap();
    assert!(derived.jitter_ms.is_nan() && derived.tokens_per_sec_per_mib.is_nan());
    assert_eq!((derived.speedup, derived.break_even_steps), (None, None));
    let losses = &read.rows[0].figures.as_ref().unwrap().losses;
    assert!(losses[0].to_bits() == 10.5_f64.to_bits() && losses[1].is_nan());
    assert_eq!(read.rows[1], study.rows[1]);
    assert_eq!((read.kind, read.made), (study.kind, study.made));
}

/// What reading says of results with this text, the directory left out.
fn refusal(text: &str) -> (ReportError, String) {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("results.json"), text).unwrap();
    let error = read_study(dir.path()).unwrap_err();
    let words = error.to_string().replace(&format!("{}/", dir.path().display()), "");
    assert!(!words.contains('\n'), "{words}");
    (error, words)
}

#[test]
fn what_is_no_study_is_refused() {
    let dir = tempdir().unwrap();
    let missing = read_study(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(missing, ReportError::NoStudy { .. }) && missing.to_string().contains("nowhere/results.json"));

    let (error, words) = refusal("{\"version\": 1,");
    assert!(
        matches!(error, ReportError::NotJson { .. }) && words.starts_with("results.json is not JSON"),
        "{words}"
    );

    let (error, words) = refusal("{\"version\": 2}");
    assert!(matches!(error, ReportError::OtherVersion { .. }), "{words}");
    assert!(words.starts_with("results.json has version 2, expected 1"), "{words}");
    for other in ["[1]", "{\"version\": \"1\"}", "{}", "null"] {
        assert!(matches!(refusal(other).0, ReportError::OtherVersion { .. }), "{other}");
    }

    let (error, words) = refusal("{\"version\": 1, \"kind\": \"sweep\"}");
    assert!(
        matches!(error, ReportError::NotAStudy { .. }) && words.contains("missing field `made`"),
        "{words}"
    );
    let mut study = serde_json::to_value(made_up::empty(StudyKind::Sweep)).unwrap();
    study["kind"] = "other".into();
    let (error, words) = refusal(&study.to_string());
    assert!(
        matches!(error, ReportError::NotAStudy { .. }) && words.contains("unknown variant `other`"),
        "{words}"
    );
    // A null where a number is not expected stays an error.
    study["kind"] = "sweep".into();
    study["axes"] = serde_json::Value::Null;
    assert!(matches!(refusal(&study.to_string()).0, ReportError::NotAStudy { .. }));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = write_study(&dir.path().join("file/study"), &made_up::fixed_work()).unwrap_err();
    assert!(matches!(error, ReportError::Io { action: "create", .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&Path::new("file").join("study").display().to_string()),
        "{error}"
    );
}
