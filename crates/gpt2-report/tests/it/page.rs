//! The HTML page.

use crate::made_up;
use gpt2_records::Study;
use gpt2_report::study_page;
use serde_json::Value;

/// The text between two others, from `from` on, and where it ends.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<(&'a str, &'a str)> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end)
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&amp;", "&")
}

fn json(page: &str) -> Value {
    let (text, _) = between(page, "<script type=\"application/json\" id=\"results\">", "</script>").unwrap();
    serde_json::from_str(text).unwrap()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    between(tag, &format!("{name}=\""), "\"").map(|(value, _)| unescaped(value))
}

/// The cells of a row of a table: the tag's attributes and the text.
fn cells(row: &str) -> Vec<(&str, String)> {
    row.split("<td")
        .skip(1)
        .map(|cell| {
            let (tag, rest) = cell.split_once('>').unwrap();
            (tag, unescaped(rest.split_once("</td>").unwrap().0))
        })
        .collect()
}

fn number(json: &Value, pointer: &str) -> f64 {
    let value = json.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"));
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number at {pointer}: {value}"))
}

/// Compares every number in the tables of a page with the JSON in it, and returns how many there were.
fn compare(page: &str, study: Option<&Study>) -> usize {
    let json = json(page);
    let mut compared = 0;
    for row in page.split("<tr>").skip(1) {
        let cells = cells(row.split_once("</tr>").unwrap().0);
        for (tag, text) in &cells {
            let Some(from) = attribute(tag, "data-from") else {
                assert!(!tag.contains("number") || text == "–", "a number from nowhere: {text}");
                continue;
            };
            let value = match (attribute(tag, "data-over"), attribute(tag, "data-mean")) {
                (Some(over), _) => number(&json, &from) / number(&json, &over),
                (None, Some(field)) => {
                    let trials = json.pointer(&from).and_then(Value::as_array).unwrap();
                    trials.iter().map(|trial| trial[&field].as_f64().unwrap()).sum::<f64>() / trials.len() as f64
                }
                (None, None) => number(&json, &from),
            };
            let expected = value / attribute(tag, "data-per").unwrap().parse::<f64>().unwrap();
            let shown: f64 = text
                .replace(',', "")
                .parse()
                .unwrap_or_else(|_| panic!("no number: {text}"));
            let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            let half = 0.5 * 10_f64.powi(-(decimals as i32));
            assert!(
                (shown - expected).abs() <= half * (1.0 + 1e-6),
                "{from}: {text} for {expected}"
            );
            // Rounding leaves something of a small number.
            let error = (shown - expected).abs() / expected.abs();
            assert!(
                expected == 0.0 || error <= 0.05 || decimals >= 4,
                "{from}: {text} for {expected}"
            );
            compared += 1;
            // The number is that of the row whose name stands in the same line.
            let rest = from.strip_prefix("/rows/");
            if let (Some(study), Some((index, _))) = (study, rest.and_then(|rest| rest.split_once('/'))) {
                let name = &study.rows[index.parse::<usize>().unwrap()].name;
                let marked = format!("{name} (baseline)");
                assert!(
                    cells.iter().any(|(_, text)| text == name || *text == marked),
                    "{name}: {row}"
                );
            }
        }
    }
    compared
}

#[test]
fn every_number_in_the_tables_is_the_json_s() {
    for (name, study) in made_up::studies() {
        let page = study_page(&study).unwrap();
        let embedded: Study = serde_json::from_value(json(&page)).unwrap();
        assert_eq!(embedded, study, "{name}");
        let compared = compare(&page, Some(&study));
        let measured = study.rows.iter().filter(|row| row.figures.is_some()).count();
        let expected = study
            .profile
            .as_ref()
            .map_or(measured * 20, |profile| profile.operations.len() * 5);
        assert!(compared >= expected, "{name}: only {compared} numbers");
    }
}

#[test]
fn numbers_that_are_not_finite_are_not_shown() {
    let mut study = made_up::sweep();
    study.rows[0].derived = Some(made_up::not_finite());
    study.rows[1].figures.as_mut().unwrap().tokens_per_sec = f64::NAN;
    let page = study_page(&study).unwrap();
    assert!(compare(&page, None) > 100);
    for word in ["NaN", "inf<"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn names_cannot_break_out() {
    let evil = "</script><script>alert(1)</script>\"'&<img src=x>|`";
    let mut study = made_up::fixed_work();
    evil.clone_into(&mut study.rows[0].name);
    study.rows[0].reason = Some(evil.to_owned());
    study.axes = vec![evil.to_owned()];
    study.rows[0].axes = [(evil.to_owned(), evil.to_owned())].into();
    study.rows[0].figures.as_mut().unwrap().counters = [(evil.to_owned(), 1.5)].into();
    study.settings.insert(evil.to_owned(), evil.to_owned());
    study.notes.push(evil.to_owned());
    evil.clone_into(&mut study.made.command_line);
    let page = study_page(&study).unwrap();
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("<img"));
    assert_eq!(json(&page)["notes"][1], evil);
    assert!(compare(&page, None) > 30);
}

#[test]
fn the_page_asks_for_nothing() {
    for (name, study) in made_up::studies() {
        let page = study_page(&study).unwrap();
        assert!(
            page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\""),
            "{name}"
        );
        let allowed = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for request in ["http://", "https://", "src=", "@import", "url(", "<iframe", "onload"] {
            assert!(!allowed.contains(request), "{name}: {request}");
        }
        assert_eq!(
            page.matches("href=").count(),
            page.matches("href=\"data:,\"").count(),
            "{name}"
        );
    }
}

#[test]
fn the_page_says_by_whom_where_and_how() {
    let study = made_up::threads();
    let page = study_page(&study).unwrap();
    for fact in [
        "Made-up Processor 9000, 16 processors to use, 128.0 GiB of memory",
        "Made-up GPU 80 GB",
        "gpt2 0.1.0, Burn 0.21.0, commit 0123456789abcdef0123456789abcdef01234567",
        "gpt2 bench made-up --out studies/made-up",
        "2026-11-27T12:00:00Z",
        "No hardware counters: /proc/sys/kernel/perf_event_paranoid is 4.",
        "Every number in this study is made up.",
        "@media (prefers-color-scheme:dark)",
    ] {
        assert!(page.contains(fact), "{fact}");
    }
    let figures = gpt2_report::figures::study_figures(&study);
    assert_eq!(page.matches("<svg").count(), figures.len());
}
