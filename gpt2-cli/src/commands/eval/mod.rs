//! `gpt2 eval`: from the flags to the tasks, their progress, and what comes of them.

mod output;
mod progress;

use super::weights::weights_of;
use crate::cli::EvalArgs;
use crate::diagnostics::{note, warn};
use crate::error::CliError;
use crate::printer::print;
use gpt2_backend::Chosen;
use gpt2_base::nearest;
use gpt2_data::{Split, TokenStream};
use gpt2_eval::tasks::loss::LossTask;
use gpt2_eval::{Evaluation, Task, TaskFile, TaskWork};
use gpt2_model::Gpt2Config;
use gpt2_model::weights::load_config;
use output::{Report, check_writable, write_per_example, write_report};
use progress::Bar;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Checks the flags, reads the tasks, evaluates, and prints and writes the results.
///
/// # Errors
/// What is wrong with flags, files, weights or device.
pub(crate) fn run(args: &EvalArgs) -> Result<(), CliError> {
    check(args)?;
    let sources = sources(args)?;
    let weights = weights_of(&args.path)?;
    let config = load_config(&weights)?;
    let tasks = sources
        .iter()
        .map(|source| task(source, args, &config))
        .collect::<Result<Vec<_>, _>>()?;
    let chosen = Chosen::decide(args.machine.backend, args.machine.device)?;
    note(&format!(
        "{} on {} {} ({})",
        weights.display(),
        chosen.backend,
        chosen.device.name,
        chosen.reason
    ));
    let evaluation = Evaluation {
        weights: &weights,
        precision: args.machine.precision,
        batch: args.batch,
    };
    let started = Instant::now();
    let mut bar = Bar::default();
    let results = evaluation.run(&tasks, &chosen, &mut bar)?;
    drop(bar); // takes it away
    for warning in output::warnings(&results, config.block_size) {
        warn(&warning);
    }
    let report = Report {
        evaluation: &evaluation,
        chosen: &chosen,
        sources: &sources,
        results: &results,
        seconds: started.elapsed().as_secs_f64(),
    };
    if let Some(path) = &args.json {
        write_report(path, &report)?;
    }
    if let Some(path) = &args.per_example {
        write_per_example(path, &results)?;
    }
    print(output::table_of(&results))
}

/// The tasks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskKind {
    Loss,
    Hellaswag,
    Lambada,
}

impl TaskKind {
    const ALL: [Self; 3] = [Self::Loss, Self::Hellaswag, Self::Lambada];

    const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Hellaswag => "hellaswag",
            Self::Lambada => "lambada",
        }
    }

    fn of(name: &str) -> Result<Self, CliError> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| CliError::UnknownTask {
            name: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
            nearest: nearest(name, Self::ALL.map(Self::name)),
        })
    }

    /// Its file, if that was given.
    fn file(self, args: &EvalArgs) -> Option<&PathBuf> {
        match self {
            Self::Loss => args.data.as_ref(),
            Self::Hellaswag => args.hellaswag.as_ref(),
            Self::Lambada => args.lambada.as_ref(),
        }
    }

    /// The task without its file.
    fn without_file(self) -> CliError {
        let (what, flag) = match self {
            Self::Loss => ("prepared data", "--data DIR"),
            Self::Hellaswag => ("HellaSwag's .jsonl or llm.c's .bin", "--hellaswag FILE"),
            Self::Lambada => ("LAMBADA's .jsonl", "--lambada FILE"),
        };
        CliError::NoTaskFile {
            task: self.name(),
            what,
            flag,
        }
    }
}

/// A task and where its examples are.
#[derive(Debug)]
struct Source<'a> {
    kind: TaskKind,
    path: &'a Path,
}

/// The tasks that were asked for, each once, or else those whose files were given.
fn sources(args: &EvalArgs) -> Result<Vec<Source<'_>>, CliError> {
    let mut kinds = Vec::new();
    for name in &args.tasks {
        let kind = TaskKind::of(name.trim())?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if args.tasks.is_empty() {
        kinds.extend(TaskKind::ALL.into_iter().filter(|kind| kind.file(args).is_some()));
    }
    if kinds.is_empty() {
        return Err(CliError::NoTask);
    }
    kinds
        .into_iter()
        .map(|kind| {
            let path = kind.file(args).ok_or_else(|| kind.without_file())?;
            Ok(Source { kind, path })
        })
        .collect()
}

fn task(source: &Source, args: &EvalArgs, config: &Gpt2Config) -> Result<Task, CliError> {
    let path = source.path;
    let file = match source.kind {
        TaskKind::Loss => return loss_task(source, args, config),
        TaskKind::Hellaswag => TaskFile::Hellaswag(path.to_owned()),
        TaskKind::Lambada => TaskFile::Lambada(path.to_owned()),
    };
    Ok(file.read(args.limit, config)?)
}

fn loss_task(source: &Source, args: &EvalArgs, config: &Gpt2Config) -> Result<Task, CliError> {
    let loss = LossTask {
        stream: Arc::new(TokenStream::open(source.path, Split::Val)?),
        seq: args.seq.unwrap_or(config.block_size),
        max_batches: args.max_batches,
    };
    if loss.seq > config.block_size {
        let expected = format!("at most {}, the model's block", config.block_size);
        return Err(invalid("--seq", &loss.seq, expected));
    }
    let task = Task {
        name: source.kind.name().to_owned(),
        work: TaskWork::Loss(loss),
    };
    task.check(config)?;
    // Whether one window fits.
    task.examples(args.batch)?;
    Ok(task)
}

fn invalid(flag: &'static str, value: &dyn ToString, expected: String) -> CliError {
    CliError::InvalidFlag {
        flag,
        value: value.to_string(),
        expected,
    }
}

/// What can be judged before anything is read.
fn check(args: &EvalArgs) -> Result<(), CliError> {
    let counts = [
        ("--batch", Some(args.batch)),
        ("--limit", args.limit),
        ("--seq", args.seq),
        ("--max-batches", args.max_batches),
    ];
    if let Some((flag, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
        return Err(invalid(flag, &0, "at least 1".to_owned()));
    }
    for (flag, path) in [("--json", &args.json), ("--per-example", &args.per_example)] {
        if let Some(path) = path {
            check_writable(flag, path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_task_leads_to_the_nearest() {
        let message = TaskKind::of("helaswag").unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown task `helaswag` in --tasks, expected loss, hellaswag, lambada; did you mean `hellaswag`?"
        );
        let message = TaskKind::of("mmlu").unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown task `mmlu` in --tasks, expected loss, hellaswag, lambada"
        );
    }
}
