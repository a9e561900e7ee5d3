//! Inspection counts, shows a sample, and finds all damage at once.

use std::fs;
use std::path::Path;

use gpt2_data::{Damage, DataError, Manifest, PrepareOptions, ShardWriter, Split, TokenStream, ValSplit, inspect};

use crate::support::{Outcome, prose, run};

fn prepared(root: &Path) -> Result<std::path::PathBuf, Box<dyn std::error::Error>> {
    let (input, out) = (root.join("a.txt"), root.join("out"));
    fs::write(&input, format!("The beginning. {}", prose(1, 20_000)))?;
    run(&PrepareOptions {
        validation: ValSplit::Tokens(500),
        shard_tokens: 1000,
        ..PrepareOptions::new(vec![input], &out)
    })?;
    Ok(out)
}

#[test]
fn sound_data_is_counted() -> Outcome {
    let root = tempfile::tempdir()?;
    let out = prepared(root.path())?;
    let found = inspect(&out)?;
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    let manifest = found.manifest.ok_or("no manifest")?;
    let [train, val] = &found.splits[..] else {
        panic!("two splits, found {:?}", found.splits)
    };
    assert_eq!((train.split, train.tokens), (Split::Train, manifest.train.tokens));
    assert_eq!((val.split, val.tokens, val.documents), (Split::Val, 500, 1));
    assert_eq!(train.shards.len(), manifest.train.shards.len());
    assert!(val.sample.starts_with("<|endoftext|>The beginning. "), "{}", val.sample);
    Ok(())
}

#[test]
fn all_damage_is_found_at_once() -> Outcome {
    let root = tempfile::tempdir()?;
    let out = prepared(root.path())?;
    let shard = |number: usize| out.join(format!("tokens_train_{number:06}.bin"));
    // A changed token, a truncated shard, one missing, one too many, a stranger, a leftover.
    let mut bytes = fs::read(shard(0))?;
    bytes[1024] ^= 1;
    fs::write(shard(0), bytes)?;
    let bytes = fs::read(shard(1))?;
    fs::write(shard(1), &bytes[..1500])?;
    fs::remove_file(shard(2))?;
    let mut shorter = ShardWriter::create(shard(3))?;
    shorter.push(7)?;
    shorter.finish()?;
    let mut extra = ShardWriter::create(shard(77))?;
    extra.push(7)?;
    extra.finish()?;
    fs::write(out.join("stranger.bin"), "??")?;
    fs::write(out.join("tokens_train_000078.bin.tmp"), "half")?;

    let damage = inspect(&out)?.damage;
    let has = |what: &str, test: &dyn Fn(&Damage) -> bool| {
        assert_eq!(
            damage.iter().filter(|damage| test(damage)).count(),
            1,
            "{what} in {damage:?}"
        );
    };
    has(
        "hash",
        &|it| matches!(it, Damage::Hash { file } if file == "tokens_train_000000.bin"),
    );
    has("truncated", &|it| {
        matches!(it, Damage::Unreadable(DataError::ShardSize { .. }))
    });
    has(
        "missing",
        &|it| matches!(it, Damage::Missing { file } if file == "tokens_train_000002.bin"),
    );
    has("count", &|it| {
        matches!(
            it,
            Damage::TokenCount {
                expected: 1000,
                found: 1,
                ..
            }
        )
    });
    has(
        "extra",
        &|it| matches!(it, Damage::Unlisted { file } if file == "tokens_train_000077.bin"),
    );
    has("stranger", &|it| matches!(it, Damage::NoSplit { .. }));
    has("leftover", &|it| matches!(it, Damage::Leftover { .. }));
    assert_eq!(damage.len(), 7, "{damage:?}");
    assert!(damage.iter().all(|damage| !damage.to_string().contains('\n')));
    Ok(())
}

#[test]
fn counts_that_do_not_add_up_are_damage() -> Outcome {
    let root = tempfile::tempdir()?;
    let out = prepared(root.path())?;
    let mut manifest = Manifest::read(&out)?.ok_or("no manifest")?;
    manifest.val.documents = 9;
    manifest.write(&out)?;
    let damage = inspect(&out)?.damage;
    assert!(
        matches!(
            damage[..],
            [Damage::SplitCount {
                split: Split::Val,
                what: "documents",
                expected: 9,
                found: 1
            }]
        ),
        "{damage:?}"
    );
    Ok(())
}

#[test]
fn shards_of_other_programs_need_no_manifest() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("train.bin"), [1, 0, 2, 0])?;
    fs::write(dir.path().join("val.bin"), [1, 0, 2])?;
    let found = inspect(dir.path())?;
    assert_eq!((found.splits.len(), found.splits[0].tokens), (1, 2));
    assert!(
        matches!(found.damage[..], [Damage::Unreadable(DataError::OddSize { .. })]),
        "{:?}",
        found.damage
    );
    Ok(())
}

#[test]
fn tokens_of_others_are_damage_by_their_signs() -> Outcome {
    let dir = tempfile::tempdir()?;
    let characters: Vec<u8> = (0..400_u16).flat_map(|n| (n % 65).to_le_bytes()).collect();
    let wide: Vec<u8> = (0..400_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.path().join("train.bin"), characters)?;
    fs::write(dir.path().join("meta.pkl"), b"\x80\x04}")?;
    fs::write(dir.path().join("val.bin"), wide)?;
    let damage = inspect(dir.path())?.damage;
    assert!(
        matches!(
            damage[..],
            [
                Damage::Unreadable(DataError::OtherVocabulary { .. }),
                Damage::Unreadable(DataError::WideTokens { .. })
            ]
        ),
        "{damage:?}"
    );
    for split in Split::ALL {
        TokenStream::open(dir.path(), split).unwrap_err();
    }
    Ok(())
}

#[test]
fn directories_without_data_are_errors_and_unfinished_ones_damage() -> Outcome {
    let dir = tempfile::tempdir()?;
    assert!(matches!(inspect(dir.path()), Err(DataError::NothingPrepared { .. })));
    assert!(matches!(
        inspect(&dir.path().join("no")),
        Err(DataError::Io { action: "list", .. })
    ));
    fs::write(dir.path().join("progress.json"), "{}")?;
    assert!(matches!(inspect(dir.path())?.damage[..], [Damage::Unfinished]));
    fs::write(dir.path().join("manifest.json"), "{}")?;
    assert!(matches!(inspect(dir.path()), Err(DataError::BadManifest { .. })));
    Ok(())
}
