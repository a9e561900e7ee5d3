//! What figures look like, as far as a program can tell.

use crate::made_up;
use gpt2_base::stats::Summary;
use gpt2_records::{Figures, Profile, Status, Study, StudyKind, TopDown, TopDownSlots};
use gpt2_report::figures::{Figure, study_figures};
use roxmltree::Document;
use std::collections::BTreeMap;

fn named<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
    figures
        .iter()
        .find(|figure| figure.name() == name)
        .unwrap_or_else(|| panic!("no figure {name}"))
}

fn names(study: &Study) -> Vec<&'static str> {
    study_figures(study).iter().map(Figure::name).collect()
}

/// A text of an SVG: where, anchored how, and what.
struct Text {
    x: f64,
    y: f64,
    anchor: String,
    words: String,
}

fn texts(svg: &str) -> Vec<Text> {
    let document = Document::parse(svg).expect("an SVG is XML");
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    let number = |node: &roxmltree::Node<'_, '_>, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
    texts
        .map(|node| Text {
            x: number(&node, "x"),
            y: number(&node, "y"),
            anchor: node.attribute("text-anchor").unwrap().to_owned(),
            words: node.text().unwrap_or_default().trim().to_owned(),
        })
        .collect()
}

#[test]
fn every_kind_of_study_has_its_figures() {
    let sweep = [
        "throughput_against_batch",
        "memory_against_batch",
        "warmup_and_step_time",
        "speedup",
        "jitter",
    ];
    assert_eq!(names(&made_up::sweep()), sweep);
    assert_eq!(
        names(&made_up::threads()),
        ["thread_scaling", "speedup", "jitter", "loss"]
    );
    assert_eq!(
        names(&made_up::fixed_work()),
        ["speedup", "warmup_and_step_time", "jitter", "loss"]
    );
    assert_eq!(names(&made_up::scaling()), ["scaling", "breakdown", "jitter", "loss"]);
    let profile = ["layer_kinds", "roofline", "attention_against_feed_forward", "top_down"];
    assert_eq!(names(&made_up::profile()), profile);
}

#[test]
fn labels_of_thirty_rows_do_not_overlap() {
    let mut study = made_up::sweep();
    let measured = study.rows[0].figures.clone();
    for row in &mut study.rows {
        row.status = Status::Done;
        row.figures = row.figures.take().or_else(|| measured.clone());
    }
    assert_eq!(study.rows.len(), 30);
    let figures = study_figures(&study);
    for name in ["warmup_and_step_time", "speedup", "jitter"] {
        let svg = named(&figures, name).svg().unwrap();
        let all = texts(&svg);
        // The names of rows end at the axis; they are the only texts that do.
        let labels: Vec<&Text> = all.iter().filter(|text| text.anchor == "end").collect();
        assert_eq!(labels.len(), 30, "{name}");
        for pair in labels.windows(2) {
            assert!(
                (pair[1].y - pair[0].y).abs() >= 14.0,
                "{name}: {} and {}",
                pair[0].words,
                pair[1].words
            );
            assert!((pair[1].x - pair[0].x).abs() < 0.5, "{name}");
        }
        // They differ, and do not reach the left edge at 0.54 em a character, as DejaVu Sans has on average.
        let mut words: Vec<&str> = labels.iter().map(|text| text.words.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 30, "{name}");
        for label in labels {
            assert!(
                label.x - 0.54 * 12.0 * label.words.chars().count() as f64 > 0.0,
                "{}",
                label.words
            );
        }
    }
}

#[test]
fn figures_grow_with_their_rows() {
    let height = |study: &Study| {
        let svg = named(&study_figures(study), "speedup").svg().unwrap();
        let document = Document::parse(&svg).unwrap();
        document
            .root_element()
            .attribute("height")
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let study = made_up::threads();
    let mut short = study.clone();
    short.rows.truncate(14);
    assert!(height(&study) >= height(&short) + 2 * 20);
}

#[test]
fn every_axis_has_its_unit() {
    let units = [
        (
            "throughput_against_batch",
            &["batch (sequences)", "throughput (tokens/s)"][..],
        ),
        ("memory_against_batch", &["batch (sequences)", "peak memory (GiB)"]),
        (
            "warmup_and_step_time",
            &["warm-up: what settling costs (s)", "median step once settled (ms)"],
        ),
        ("jitter", &["standard deviation of a run's own steps (ms)"]),
        (
            "thread_scaling",
            &["CPU threads", "throughput (tokens/s)", "parallel efficiency (%)"],
        ),
        ("loss", &["optimizer step", "loss (nats a token)"]),
        (
            "roofline",
            &["work (FLOP for each byte read or written)", "rate (TFLOP/s)"],
        ),
        ("layer_kinds", &["time in a step (ms)"]),
        ("top_down", &["share of the pipeline's slots (%)"]),
        (
            "attention_against_feed_forward",
            &["time (ms)", "work (GFLOP)", "rate (TFLOP/s)", "traffic (GB/s)"],
        ),
        ("scaling", &["devices", "speed-up (×)", "parallel efficiency (%)"]),
    ];
    let all: Vec<Figure> = made_up::studies()
        .iter()
        .flat_map(|(_, study)| study_figures(study))
        .collect();
    for (name, titles) in units {
        let texts = texts(&named(&all, name).svg().unwrap());
        for title in titles {
            assert!(texts.iter().any(|text| text.words == *title), "{name}: {title}");
        }
    }
}

#[test]
fn text_axes_and_background_follow_the_page() {
    let svg = named(&study_figures(&made_up::sweep()), "jitter").svg().unwrap();
    let document = Document::parse(&svg).unwrap();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        for property in ["fill", "stroke"] {
            if let Some(color) = node.attribute(property).filter(|color| color.starts_with('#')) {
                let style = node.attribute("style").unwrap_or_default();
                assert!(
                    style.starts_with(&format!("{property}:var(--")),
                    "{:?} {style}",
                    node.tag_name()
                );
                assert!(
                    style.ends_with(&format!(",{color})")),
                    "opened alone, the colour must be {color}: {style}"
                );
            }
        }
    }
    assert_eq!(
        document.root_element().first_element_child().unwrap().tag_name().name(),
        "title"
    );
}

#[test]
fn recorded_counts_are_named_so() {
    let mut study = made_up::profile();
    assert_eq!(
        named(&study_figures(&study), "top_down").title(),
        "Top-down averages (recorded)"
    );
    study.profile.as_mut().unwrap().top_down.as_mut().unwrap().recorded = None;
    assert_eq!(named(&study_figures(&study), "top_down").title(), "Top-down averages");
}

#[test]
fn names_are_escaped() {
    let mut study = made_up::fixed_work();
    study.rows[0].name = "<b>&\"'".to_owned();
    let svg = named(&study_figures(&study), "speedup").svg().unwrap();
    assert!(!svg.contains("<b>"));
    assert!(texts(&svg).iter().any(|text| text.words == "<b>&\"'"));
}

#[test]
fn pngs_are_twice_as_large_as_the_svg() {
    let figure = &study_figures(&made_up::fixed_work())[0];
    let svg = figure.svg().unwrap();
    let document = Document::parse(&svg).unwrap();
    let size = ["width", "height"].map(|name| document.root_element().attribute(name).unwrap().parse::<u32>().unwrap());
    let png = figure.png().unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!([number(16), number(20)], size.map(|pixels| 2 * pixels));
}

fn draw(study: &Study) {
    for figure in study_figures(study) {
        let svg = figure.svg().unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", figure.name());
    }
}

#[test]
fn odd_numbers_draw_what_they_can() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300] {
        let spread = Summary {
            count: 3,
            mean: value,
            std: value,
            min: value,
            p50: value,
            p95: value,
            max: value,
        };
        let odd = Figures {
            step_ms: spread,
            tokens_per_sec: value,
            warmup_sec: value,
            settling_cost_sec: Some(value),
            losses: vec![value; 3],
            val_losses: vec![(1, value)],
            counters: BTreeMap::from([("odd".to_owned(), value)]),
            ..Figures::default()
        };
        for mut study in [
            made_up::sweep(),
            made_up::threads(),
            made_up::fixed_work(),
            made_up::scaling(),
        ] {
            // One odd row among others, then nothing but odd rows.
            study.rows.truncate(6);
            study.rows[1].figures = Some(odd.clone());
            study.rows[1].derived = Some(made_up::not_finite());
            draw(&study);
            for row in &mut study.rows {
                row.status = Status::Done;
                row.figures = Some(odd.clone());
            }
            study.derive();
            draw(&study);
        }
        let mut study = made_up::profile();
        let profile = study.profile.as_mut().unwrap();
        profile.kinds[0].forward_ms = value;
        profile.operations[0].ms = value;
        profile.operations[1].bytes = value;
        draw(&study);
        study.profile.as_mut().unwrap().ceilings.bytes_per_sec = value;
        draw(&study);
    }
}

#[test]
fn what_is_missing_is_left_out() {
    for kind in [
        StudyKind::Threads,
        StudyKind::Sweep,
        StudyKind::FixedWork,
        StudyKind::Profile,
        StudyKind::Scaling,
    ] {
        assert_eq!(names(&made_up::empty(kind)), [""; 0]);
    }
    let mut study = made_up::sweep();
    study.axes.retain(|axis| axis != "batch");
    assert_eq!(names(&study), ["warmup_and_step_time", "speedup", "jitter"]);
    for row in &mut study.rows {
        (row.status, row.figures) = (Status::Failed, None);
    }
    assert_eq!(names(&study), [""; 0]);
    let mut study = made_up::profile();
    study.profile = Some(Profile {
        top_down: Some(TopDown {
            recorded: None,
            kinds: BTreeMap::from([("attention".to_owned(), Vec::<TopDownSlots>::new())]),
        }),
        ..Profile::default()
    });
    assert_eq!(names(&study), [""; 0]);
}

#[test]
fn without_a_baseline_the_leader_board_is_of_throughput() {
    let mut study = made_up::fixed_work();
    study.baseline = None;
    study.derive();
    assert_eq!(
        named(&study_figures(&study), "speedup").title(),
        "Leader board: throughput"
    );
}
