//! Text in, shards out: formats, splits, and input that is refused.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use flate2::write::GzEncoder;
use gpt2_base::Invalid;
use gpt2_data::{
    DataError, DataIdentity, END_OF_TEXT, Encoding, PrepareEvent, PrepareOptions, SkipReason, Split, SplitDocuments,
    Tokenizer, ValSplit, prepare,
};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::support::{Outcome, contents, json_lines, prose, run, stream_of, tokens};

fn options(inputs: &[&Path], out: &Path) -> PrepareOptions {
    PrepareOptions::new(inputs.iter().map(|input| input.to_path_buf()).collect(), out)
}

#[test]
fn a_play_is_split_at_blank_lines_as_llm_c_does() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (input, out) = (dir.path().join("play.txt"), dir.path().join("out"));
    let text = "First Citizen:\nBefore we proceed.\n\nAll:\nSpeak, speak.\n\n\nFirst Citizen:\nYou are all resolved.\n";
    fs::write(&input, text)?;
    let manifest = run(&PrepareOptions {
        split_documents: SplitDocuments::BlankLine,
        validation: ValSplit::Tokens(7),
        ..options(&[&input], &out)
    })?;

    // llm.c: for each section of `text.split("\n\n")`, the end of text, then the section with its "\n\n" put back.
    let sections = text.split_inclusive("\n\n").collect::<Vec<_>>();
    let expected = stream_of(&sections);
    assert_eq!(tokens(&out, &manifest, Split::Val)?, expected[..7]);
    assert_eq!(tokens(&out, &manifest, Split::Train)?, expected[7..]);
    assert_eq!((manifest.val.documents, manifest.train.documents), (1, 2));
    assert_eq!(manifest.val.shards[0].file, "tokens_val_000000.bin");
    assert_eq!(manifest.sources[0].sha256, gpt2_base::fs::sha256_file(&input)?);
    Ok(())
}

#[test]
fn every_format_gives_the_same_tokens() -> Outcome {
    let dir = tempfile::tempdir()?;
    let documents = [
        "Once upon a time.",
        "中文 text\n\nwith lines",
        "The <|endoftext|> is only text here.",
    ];
    let lines = json_lines(&documents);
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes);
    write("a.jsonl", lines.as_bytes())?;
    write("a.jsonl.zst", &zstd::encode_all(lines.as_bytes(), 3)?)?;
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes())?;
    let gzip = gzip.finish()?;
    write("a.ndjson.gz", &gzip)?;
    // Filled up to a block, as `gzip -t` passes.
    write("padded.ndjson.gz", &[&gzip[..], &[0; 512]].concat())?;
    write_parquet(&dir.path().join("a.parquet"), &documents)?;
    write(
        "b.parquet.zst",
        &zstd::encode_all(File::open(dir.path().join("a.parquet"))?, 3)?,
    )?;
    for (number, document) in documents.iter().enumerate() {
        fs::create_dir_all(dir.path().join("texts"))?;
        write(&format!("texts/{number}.txt"), document.as_bytes())?;
    }

    for input in [
        "a.jsonl",
        "a.jsonl.zst",
        "a.ndjson.gz",
        "padded.ndjson.gz",
        "a.parquet",
        "b.parquet.zst",
        "texts",
        "texts/*.txt",
    ] {
        let out = tempfile::tempdir()?;
        let manifest = run(&options(&[&dir.path().join(input)], out.path()))?;
        assert_eq!(
            tokens(out.path(), &manifest, Split::Train)?,
            stream_of(&documents),
            "{input}"
        );
        assert_eq!(manifest.train.documents, 3);
        assert!(manifest.val.shards.is_empty());
        assert_eq!(contents(out.path())?.len(), 2, "a shard and the manifest, nothing else");
    }
    Ok(())
}

fn write_parquet(path: &Path, documents: &[&str]) -> Outcome {
    let schema = Arc::new(parse_message_type("message rows { required binary text (UTF8); }")?);
    let mut writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::default())?;
    let mut group = writer.next_row_group()?;
    let mut column = group.next_column()?.ok_or("no column")?;
    let values: Vec<ByteArray> = documents.iter().map(|&document| ByteArray::from(document)).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    column.close()?;
    group.close()?;
    writer.close()?;
    Ok(())
}

#[test]
fn threads_and_shard_size_do_not_change_the_stream() -> Outcome {
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("long.txt");
    // Several times the size at which text is cut, with no document to end at.
    let text = prose(1, 5 << 20);
    fs::write(&input, &text)?;
    let expected = stream_of(&[&text]);
    for (threads, shard_tokens) in [(1, 100_000_000), (3, 300_000), (2, 65_537)] {
        let out = dir.path().join(format!("out{threads}"));
        let manifest = run(&PrepareOptions {
            threads: NonZeroUsize::new(threads),
            shard_tokens,
            ..options(&[&input], &out)
        })?;
        assert!(tokens(&out, &manifest, Split::Train)? == expected, "{threads} threads");
        let (last, full) = manifest.train.shards.split_last().ok_or("no shards")?;
        assert!(full.iter().all(|shard| shard.tokens == shard_tokens));
        assert!(last.tokens <= shard_tokens);
        assert_eq!(manifest.train.tokens, expected.len() as u64);
    }
    Ok(())
}

#[test]
fn validation_is_the_beginning_in_any_measure() -> Outcome {
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("a.jsonl");
    let documents: Vec<String> = (0..20).map(|seed| prose(seed, 1000)).collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    fs::write(&input, json_lines(&documents))?;
    let stream = stream_of(&documents);
    let first_three = stream_of(&documents[..3]).len();

    for (validation, expected) in [
        (ValSplit::Tokens(1234), 1234),
        (ValSplit::Documents(3), first_three),
        (ValSplit::Documents(19), stream_of(&documents[..19]).len()),
    ] {
        let out = tempfile::tempdir()?;
        let manifest = run(&PrepareOptions {
            validation,
            shard_tokens: 1000,
            ..options(&[&input], out.path())
        })?;
        assert_eq!(
            tokens(out.path(), &manifest, Split::Val)?,
            stream[..expected],
            "{validation:?}"
        );
        assert_eq!(
            tokens(out.path(), &manifest, Split::Train)?,
            stream[expected..],
            "{validation:?}"
        );
    }

    let out = tempfile::tempdir()?;
    let manifest = run(&PrepareOptions {
        validation: ValSplit::Fraction(0.25),
        ..options(&[&input], out.path())
    })?;
    let held_out = tokens(out.path(), &manifest, Split::Val)?;
    let text: Vec<u16> = held_out.iter().copied().filter(|&token| token != END_OF_TEXT).collect();
    let wanted = documents
        .iter()
        .map(|document| document.len())
        .sum::<usize>()
        .div_ceil(4);
    let with_all = Tokenizer::gpt2().decode_bytes(&text).len();
    let without_last = Tokenizer::gpt2().decode_bytes(&text[..text.len() - 1]).len();
    assert!(
        without_last < wanted && wanted <= with_all,
        "{without_last} < {wanted} <= {with_all}"
    );
    Ok(())
}

#[test]
fn events_tell_what_happens() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir(&input)?;
    fs::write(input.join("a.txt"), prose(1, 3 << 20))?;
    fs::write(input.join("picture.png"), "")?;
    let events = RefCell::new(Vec::new());
    let manifest = prepare(&options(&[&input], &out), &|event| events.borrow_mut().push(event))?;
    let events = events.into_inner();
    let bytes = fs::metadata(input.join("a.txt"))?.len();
    assert_eq!(
        events[0],
        PrepareEvent::Skipped {
            path: input.join("picture.png"),
            reason: SkipReason::Name,
        }
    );
    assert_eq!(events[1], PrepareEvent::Hashing { sources: 1, bytes });
    let all = PrepareEvent::Progress {
        bytes_read: bytes,
        bytes_total: bytes,
        documents: 1,
        tokens: manifest.train.tokens,
    };
    let file = manifest.train.shards[0].file.clone();
    let finished = PrepareEvent::ShardFinished {
        split: Split::Train,
        file,
        tokens: manifest.train.tokens,
    };
    assert_eq!(events[events.len() - 2..], [all, finished]);
    Ok(())
}

#[test]
fn options_that_make_no_sense_are_named() {
    let good = PrepareOptions::new(vec!["a.txt".into()], "out");
    for (bad, name) in [
        (
            PrepareOptions {
                inputs: Vec::new(),
                ..good.clone()
            },
            "input",
        ),
        (
            PrepareOptions {
                shard_tokens: 0,
                ..good.clone()
            },
            "shard-tokens",
        ),
        (
            PrepareOptions {
                shard_tokens: 1 << 31,
                ..good.clone()
            },
            "shard-tokens",
        ),
        (
            PrepareOptions {
                threads: NonZeroUsize::new(100_000),
                ..good.clone()
            },
            "threads",
        ),
        (
            PrepareOptions {
                field: String::new(),
                ..good.clone()
            },
            "field",
        ),
        (
            PrepareOptions {
                prefix: "a/b".into(),
                ..good.clone()
            },
            "prefix",
        ),
        (
            PrepareOptions {
                prefix: "my_val".into(),
                ..good.clone()
            },
            "prefix",
        ),
        (
            PrepareOptions {
                validation: ValSplit::Tokens(0),
                ..good.clone()
            },
            "val-tokens",
        ),
        (
            PrepareOptions {
                validation: ValSplit::Documents(0),
                ..good.clone()
            },
            "val-documents",
        ),
        (
            PrepareOptions {
                validation: ValSplit::Fraction(1.0),
                ..good.clone()
            },
            "val-fraction",
        ),
        (
            PrepareOptions {
                validation: ValSplit::Fraction(f64::NAN),
                ..good.clone()
            },
            "val-fraction",
        ),
    ] {
        let error = run(&bad).unwrap_err();
        assert!(
            matches!(&error, DataError::Invalid(Invalid { key, .. }) if key == name),
            "{error}"
        );
    }
    assert!(
        !Path::new("out").exists(),
        "nothing may be made before the options are checked"
    );
}

#[test]
fn input_that_gives_no_data_leaves_no_data() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (empty, small, out) = (
        dir.path().join("e.txt"),
        dir.path().join("s.txt"),
        dir.path().join("out"),
    );
    fs::write(&empty, "")?;
    fs::write(&small, "a b c d")?;
    fs::write(dir.path().join("bad.txt"), b"good \xFF")?;
    assert!(matches!(
        run(&options(&[&empty], &out)),
        Err(DataError::EmptyInput { sources: 1 })
    ));
    let all = PrepareOptions {
        validation: ValSplit::Tokens(5),
        shard_tokens: 2,
        ..options(&[&small], &out)
    };
    assert!(matches!(run(&all), Err(DataError::NothingLeftToTrain { tokens: 5 })));
    let error = run(&options(&[&small, &dir.path().join("bad.txt")], &out)).unwrap_err();
    assert!(matches!(error, DataError::BadUtf8 { offset: 5, .. }), "{error}");
    assert_eq!(contents(&out)?.len(), 0);
    Ok(())
}

#[test]
fn other_peoples_directories_are_left_alone() -> Outcome {
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("a.txt");
    fs::write(&input, "text")?;
    for resume in [false, true] {
        let error = run(&PrepareOptions {
            resume,
            ..options(&[&input], dir.path())
        })
        .unwrap_err();
        assert!(
            matches!(&error, DataError::OutputNotEmpty { found, .. } if found == "a.txt"),
            "{error}"
        );
    }
    let out = dir.path().join("out");
    run(&options(&[&input], &out))?;
    assert!(matches!(
        run(&options(&[&input], &out)),
        Err(DataError::OutputNotEmpty { .. })
    ));
    assert!(matches!(
        run(&options(&[&input], &input)),
        Err(DataError::Io { action: "create", .. })
    ));
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_name_that_is_not_utf8_loses_no_text() -> Outcome {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir()?;
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir(&input)?;
    fs::write(input.join(std::ffi::OsStr::from_bytes(b"caf\xE9.txt")), "first")?;
    fs::write(input.join("plain.txt"), "second")?;
    let manifest = run(&options(&[&input], &out))?;
    assert_eq!(tokens(&out, &manifest, Split::Train)?, stream_of(&["first", "second"]));
    assert_eq!(manifest.sources[0].path, input.join("caf\u{FFFD}.txt"));
    let again = PrepareOptions {
        resume: true,
        ..options(&[&input], &out)
    };
    assert_eq!(run(&again)?, manifest);
    Ok(())
}

#[test]
fn other_encodings_are_refused_by_name() -> Outcome {
    let dir = tempfile::tempdir()?;
    let utf16: Vec<u8> = "\u{feff}text".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, encoding) in [(&utf16[..], Encoding::Utf16), (b"caf\xE9 au lait", Encoding::Latin1)] {
        let input = dir.path().join("a.txt");
        fs::write(&input, bytes)?;
        let error = run(&options(&[&input], &dir.path().join("out"))).unwrap_err();
        assert!(
            matches!(&error, DataError::BadUtf8 { path, encoding: found, .. } if *path == input && *found == encoding),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn the_same_text_prepared_elsewhere_is_the_same_data() -> Outcome {
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("a.txt");
    fs::write(&input, prose(1, 20_000))?;
    let prepared = |name: &str| -> Result<DataIdentity, Box<dyn std::error::Error>> {
        let out = dir.path().join(name);
        let manifest = run(&PrepareOptions {
            validation: ValSplit::Tokens(500),
            shard_tokens: 1000,
            prefix: name.to_owned(),
            ..options(&[&input], &out)
        })?;
        let identity = DataIdentity::of(&out)?;
        assert_eq!(
            (identity.train_tokens, identity.val_tokens),
            (manifest.train.tokens, manifest.val.tokens)
        );
        Ok(identity)
    };
    let first = prepared("one")?;
    assert_eq!(prepared("two")?, first);
    fs::write(&input, prose(2, 20_000))?;
    assert_ne!(prepared("three")?.sha256, first.sha256);
    Ok(())
}
