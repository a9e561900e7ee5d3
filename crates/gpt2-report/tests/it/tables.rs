//! `results.csv` and `results.md`.

use crate::made_up;
use gpt2_records::{Status, StudyKind};
use gpt2_report::tables::{leader_board, results_csv, results_md, results_table};

/// The head of a CSV and its rows, read by the crate that wrote them.
fn read(csv: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let owned = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
    let mut reader = csv::Reader::from_reader(csv);
    let head = owned(reader.headers().unwrap());
    (head, reader.records().map(|record| owned(&record.unwrap())).collect())
}

#[test]
fn csv_has_a_row_for_each_configuration() {
    let study = made_up::sweep();
    let (head, rows) = read(&results_csv(&study));
    assert_eq!(rows.len(), study.rows.len());
    assert_eq!(
        head[..8],
        [
            "name",
            "peer",
            "precision",
            "recompute",
            "compile",
            "batch",
            "status",
            "reason"
        ]
    );
    assert_eq!(head[8..11], ["predicted_mib", "tokens_per_sec", "step_mean_ms"]);
    assert_eq!(
        head[head.len() - 3..],
        ["context switches/s", "page faults/s", "task clock (CPUs used)"]
    );
    let at = |name: &str| head.iter().position(|other| other == name).unwrap();
    for (row, fields) in study.rows.iter().zip(&rows) {
        assert_eq!(fields[0], row.name);
        assert_eq!(fields[at("status")], row.status.words());
        let Some(figures) = &row.figures else {
            assert_ne!(row.status, Status::Done);
            assert_eq!(fields[at("tokens_per_sec")], "");
            continue;
        };
        // In full: what is read back is the same to the last bit.
        let number = |name: &str| fields[at(name)].parse::<f64>().unwrap();
        assert_eq!(number("tokens_per_sec").to_bits(), figures.tokens_per_sec.to_bits());
        assert_eq!(
            number("peak_mib").to_bits(),
            (figures.peak_memory_bytes as f64 / 1_048_576.0).to_bits()
        );
        assert_eq!(
            number("speedup").to_bits(),
            row.derived.unwrap().speedup.unwrap().to_bits()
        );
        assert_eq!(
            number("gpu_power_watts").to_bits(),
            figures.gpu.unwrap().power_watts.to_bits()
        );
        assert_eq!(
            number("page faults/s").to_bits(),
            figures.counters["page faults/s"].to_bits()
        );
    }
}

#[test]
fn csv_quotes_and_leaves_out_what_is_not_finite() {
    let mut study = made_up::fixed_work();
    study.rows[0].name = "a, \"b\"\nc".to_owned();
    study.rows[0].derived = Some(made_up::not_finite());
    let (head, rows) = read(&results_csv(&study));
    assert_eq!(rows[0][0], "a, \"b\"\nc");
    let jitter = head.iter().position(|name| name == "jitter_ms").unwrap();
    assert_eq!(rows[0][jitter], "");
}

#[test]
fn tables_leave_out_empty_columns() {
    let titles = |table: gpt2_report::tables::Table| table.columns.into_iter().map(|c| c.title).collect::<Vec<_>>();
    let threads = titles(results_table(&made_up::threads()));
    assert!(
        !threads.contains(&"Peer".to_owned()) && !threads.contains(&"Reason".to_owned()),
        "{threads:?}"
    );
    assert!(
        threads.contains(&"Efficiency".to_owned()) && threads.contains(&"threads".to_owned()),
        "{threads:?}"
    );
    let sweep = titles(results_table(&made_up::sweep()));
    assert!(
        sweep.contains(&"Peer".to_owned()) && sweep.contains(&"Reason".to_owned()),
        "{sweep:?}"
    );
    assert!(!sweep.contains(&"Efficiency".to_owned()), "{sweep:?}");
}

#[test]
fn the_fastest_leads() {
    let study = made_up::sweep();
    let table = leader_board(&study);
    assert_eq!(
        table.rows.len(),
        study.rows.iter().filter(|row| row.figures.is_some()).count()
    );
    let rates: Vec<f64> = table
        .rows
        .iter()
        .map(|row| row[2].text().replace(',', "").parse().unwrap())
        .collect();
    assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
    assert!(table.title.ends_with(&study.rows[0].name));
}

#[test]
fn markdown_has_all_parts_and_keeps_its_columns() {
    let study = made_up::sweep();
    let figures = gpt2_report::figures::study_figures(&study);
    let text = results_md(&study, &figures);
    for part in [
        "# Sweep of gpt2-124m (made up), 1024 tokens long",
        "- **Hardware:** Made-up Processor 9000",
        "- **Backend:** cuda",
        "- **Peers:** PyTorch 2.9.0",
        "- **Command:** `gpt2 bench made-up --out studies/made-up`",
        "## Settings",
        "## Which for which goal",
        "## Leader board, against",
        "## Results",
        "## Notes",
        "![Jitter](figures/jitter.svg)",
        "out of memory",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let mut tables = 0;
    for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
        let pipes = |line: &str| line.replace("\\|", "").matches('|').count();
        let mut lines = table.lines();
        let head = lines.next().unwrap();
        for line in lines {
            assert_eq!(
                (pipes(line), line.chars().count()),
                (pipes(head), head.chars().count()),
                "{line}"
            );
        }
        tables += 1;
    }
    assert_eq!(tables, 4);
}

#[test]
fn a_profile_s_markdown_names_kinds_operations_advice_and_slots() {
    let study = made_up::profile();
    let text = results_md(&study, &[]);
    for part in [
        "## Steps and ceilings",
        "## Time by layer kind",
        "## Time by operation",
        "## Advice",
        "(recorded: made-up counts)",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // A study without anything is a page, too.
    let empty = results_md(&made_up::empty(StudyKind::Sweep), &[]);
    assert!(
        empty.contains("## Settings") && !empty.contains("## Results"),
        "{empty}"
    );
}
