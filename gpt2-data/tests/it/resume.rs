//! A preparation that is stopped anywhere and resumed leaves what one that ran through leaves.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gpt2_data::{DataError, PrepareEvent, PrepareOptions, Split, SplitDocuments, TokenStream, ValSplit, prepare};

use crate::support::{Outcome, contents, json_lines, prose, run};

/// Inputs of several batches, shards that end within documents and batches, and a validation split that ends within a
/// shard.
fn options(root: &Path, out: &str) -> Result<PrepareOptions, std::io::Error> {
    let input = root.join("in");
    if !input.exists() {
        fs::create_dir(&input)?;
        fs::write(input.join("a.txt"), prose(1, 1 << 20))?;
        let documents: Vec<String> = (0..200).map(|seed| prose(seed, 7000)).collect();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        fs::write(
            input.join("b.jsonl.zst"),
            zstd::encode_all(json_lines(&documents).as_bytes(), 1)?,
        )?;
        fs::write(input.join("c.txt"), prose(2, 5 << 19))?;
    }
    Ok(PrepareOptions {
        split_documents: SplitDocuments::BlankLine,
        validation: ValSplit::Tokens(250_000),
        shard_tokens: 200_000,
        ..PrepareOptions::new(vec![input], root.join(out))
    })
}

/// Stops a preparation at its `nth` event, as far as that can be done within a process: by a panic.
fn interrupt(options: &PrepareOptions, nth: usize) -> bool {
    let mut left = std::cell::Cell::new(nth);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        prepare(options, &|_| match left.get() {
            0 => std::panic::resume_unwind(Box::new("stopped")),
            count => left.set(count - 1),
        })
    }));
    outcome.is_err() && *left.get_mut() == 0
}

#[test]
fn resuming_gives_the_same_bytes() -> Outcome {
    let root = tempfile::tempdir()?;
    let whole = options(root.path(), "whole")?;
    let mut events = 0;
    let counting = std::cell::Cell::new(0);
    let manifest = prepare(&whole, &|_| counting.set(counting.get() + 1))?;
    events += counting.get();
    assert!(
        manifest.train.shards.len() > 3 && manifest.val.shards.len() == 2,
        "{manifest:?}"
    );
    let expected = contents(&whole.out)?;

    for nth in 0..events {
        let stopped = PrepareOptions {
            resume: true,
            ..options(root.path(), &format!("stopped{nth}"))?
        };
        assert!(interrupt(&stopped, nth), "event {nth} of {events} must come");
        // A real kill also leaves the shard that was being written.
        fs::create_dir_all(&stopped.out)?;
        fs::write(stopped.out.join("tokens_train_000000.bin.tmp"), "half")?;
        // And the lock file, whose lock the system has given back.
        fs::write(stopped.out.join("prepare.lock"), "1\n")?;
        run(&stopped)?;
        fs::remove_file(stopped.out.join("tokens_train_000000.bin.tmp")).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        assert!(
            contents(&stopped.out)? == expected,
            "stopped at event {nth} of {events}"
        );
    }
    Ok(())
}

#[test]
fn stopping_twice_is_no_different() -> Outcome {
    let root = tempfile::tempdir()?;
    let whole = options(root.path(), "whole")?;
    run(&whole)?;
    let stopped = PrepareOptions {
        resume: true,
        ..options(root.path(), "stopped")?
    };
    assert!(interrupt(&stopped, 5));
    assert!(interrupt(&stopped, 4));
    let resumed = std::cell::Cell::new(0);
    prepare(&stopped, &|event| {
        if let PrepareEvent::Resuming { shards, .. } = event {
            resumed.set(shards);
        }
    })?;
    assert!(resumed.get() > 0, "some shards must be kept");
    assert!(contents(&stopped.out)? == contents(&whole.out)?);
    Ok(())
}

#[test]
fn an_unfinished_preparation_is_not_trained_on() -> Outcome {
    let root = tempfile::tempdir()?;
    let stopped = PrepareOptions {
        resume: true,
        ..options(root.path(), "out")?
    };
    // Before the first shard, and after some.
    for nth in [2, 5] {
        assert!(interrupt(&stopped, nth));
        let error = TokenStream::open(&stopped.out, Split::Val).unwrap_err();
        let DataError::Unfinished { path, sources, options } = error else {
            panic!("{error}")
        };
        assert_eq!((path.as_path(), sources.len()), (stopped.out.as_path(), 3));
        assert_eq!(options["shard-tokens"], "200000");
    }
    run(&stopped)?;
    TokenStream::open(&stopped.out, Split::Val)?;
    Ok(())
}

#[test]
fn two_at_once_do_not_disturb_each_other() -> Outcome {
    let root = tempfile::tempdir()?;
    let whole = options(root.path(), "whole")?;
    run(&whole)?;
    let expected = contents(&whole.out)?;
    for resume in [false, true] {
        let shared = PrepareOptions {
            resume,
            ..options(root.path(), &format!("shared{resume}"))?
        };
        // The second begins when the first has written a shard.
        let second = std::cell::OnceCell::new();
        prepare(&shared, &|event| {
            if matches!(event, PrepareEvent::ShardFinished { .. }) {
                second.get_or_init(|| run(&shared));
            }
        })?;
        let error = second.into_inner().ok_or("no second")?.unwrap_err();
        let pid = std::process::id();
        assert!(
            matches!(&error, DataError::OutputInUse { path, pid: Some(held) } if *path == shared.out && *held == pid),
            "{error}"
        );
        assert!(contents(&shared.out)? == expected);
    }
    Ok(())
}

#[test]
fn a_complete_directory_is_left_as_it_is() -> Outcome {
    let root = tempfile::tempdir()?;
    let options = options(root.path(), "out")?;
    let manifest = run(&options)?;
    let before = contents(&options.out)?;
    assert_eq!(
        run(&PrepareOptions {
            resume: true,
            ..options.clone()
        })?,
        manifest
    );
    assert!(contents(&options.out)? == before);
    Ok(())
}

#[test]
fn only_the_same_work_is_resumed() -> Outcome {
    let root = tempfile::tempdir()?;
    let begun = PrepareOptions {
        resume: true,
        ..options(root.path(), "out")?
    };
    assert!(interrupt(&begun, 5));

    let error = run(&PrepareOptions {
        resume: false,
        ..begun.clone()
    })
    .unwrap_err();
    assert!(matches!(error, DataError::OutputNotEmpty { .. }), "{error}");

    let error = run(&PrepareOptions {
        shard_tokens: 100_000,
        ..begun.clone()
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("`shard-tokens` was 200000, is 100000"),
        "{error}"
    );
    let error = run(&PrepareOptions {
        validation: ValSplit::None,
        ..begun.clone()
    })
    .unwrap_err();
    assert!(matches!(error, DataError::OptionsDiffer { .. }), "{error}");

    let only: PathBuf = root.path().join("in/a.txt");
    let error = run(&PrepareOptions {
        inputs: vec![only.clone()],
        ..begun.clone()
    })
    .unwrap_err();
    assert!(error.to_string().contains("3 files then, 1 now"), "{error}");

    let text = fs::read(&only)?;
    fs::write(&only, "other")?;
    let error = run(&begun).unwrap_err();
    assert!(
        matches!(&error, DataError::SourcesDiffer { difference, .. } if difference.contains("a.txt")),
        "{error}"
    );
    fs::write(&only, text)?;

    let shard = begun.out.join("tokens_val_000000.bin");
    let mut bytes = fs::read(&shard)?;
    bytes[5000] ^= 1;
    fs::write(&shard, bytes)?;
    let error = run(&begun).unwrap_err();
    assert!(
        matches!(&error, DataError::FinishedShardChanged { path } if *path == shard),
        "{error}"
    );

    fs::write(begun.out.join("progress.json"), "{")?;
    assert!(matches!(run(&begun), Err(DataError::BadManifest { .. })));
    Ok(())
}
