//! The demo corpus: stories drawn from a grammar, so that a trainer without data has some, and knows how low the loss on
//! it can go. The grammar is in `demo/`; here stories become shards.
//!
//! # What the floor measures
//!
//! A split is `<|endoftext|>` and a story, again and again. The probability of each story under the grammar is known, a text
//! has one tokenisation, and so −ln p of the split's tokens is the sum of its stories' [`Story::nats`]. Divided by the
//! number of tokens (each `<|endoftext|>` counts as one, and that a story ends is among what its probability predicts), this
//! is `entropy_nats_per_token` in the manifest: the loss on exactly these tokens of a model that knows the grammar and sees
//! every story from its beginning.
//!
//! A loss over windows differs from it in two ways. The stream's first token is never a target, nor are those after the
//! last whole window, which changes nothing to speak of. And a window that begins within a story hides what was chosen
//! before it (the name, the toy), which a model must guess once when it comes up again, and hides where in the story it
//! begins. So no model can be expected below the floor, and the best one lies a little above it: some 5 to 10 nats a window
//! (two to four roles of about 2 nats each, and a few nats to find its place), which is 0.04 to 0.08 a token for windows of
//! 128. That is an estimate; the exact figure would be a sum over all beginnings that a window may hide.

mod grammar;
mod syntax;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gpt2_base::fs::{Lock, NewDirectory, sha256};

pub use grammar::{Story, StoryGrammar};

use crate::error::DataError;
use crate::format::{END_OF_TEXT, MANIFEST_FILE, Split};
use crate::manifest::{Manifest, ShardManifest, SplitManifest};
use crate::rng::{SplitMix64, mix2};
use crate::shard_writer::ShardWriter;
use crate::tokenizer::Tokenizer;
use grammar::STORIES;

/// The manifest's options by which a directory is known to be a demo corpus, and which one.
const SEED: &str = "demo-seed";
const GRAMMAR: &str = "demo-grammar-sha256";

/// What decides the demo corpus, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Seed of the stories. Training and validation draw from it independently.
    pub seed: u64,
    /// Tokens to train on, at least: the last story is written whole.
    pub train_tokens: u64,
    /// Tokens to validate on, at least.
    pub val_tokens: u64,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            seed: 1337,
            train_tokens: 2_000_000,
            val_tokens: 32_768,
        }
    }
}

/// Makes the demo corpus in `dir`, or leaves it as it is if it is there whole and was made with the same options. A corpus
/// made with other options is replaced.
///
/// It is written next to `dir` and renamed, so that `dir` holds a whole corpus or does not exist. Of several processes that
/// want it one makes it, and the others wait.
///
/// # Errors
/// [`DataError::NotDemoData`] if `dir` holds anything else, which is left untouched; otherwise if it cannot be written.
pub fn write(dir: &Path, options: &DemoOptions) -> Result<Manifest, DataError> {
    if let Some(manifest) = whole(dir, options)? {
        return Ok(manifest);
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(DataError::io("create", parent))?;
    }
    let lock = lock_path(dir);
    let _lock = Lock::wait(&lock).map_err(DataError::io("lock", &lock))?;
    if let Some(manifest) = whole(dir, options)? {
        return Ok(manifest);
    }
    if let Some(manifest) = Manifest::read(dir)? {
        remove_demo(dir, &manifest)?;
    }
    refuse_other_files(dir)?;
    let new = NewDirectory::create(dir).map_err(DataError::io("create", dir))?;
    let manifest = fill(new.path(), options)?;
    new.commit().map_err(DataError::io("write", dir))?;
    Ok(manifest)
}

fn fill(dir: &Path, options: &DemoOptions) -> Result<Manifest, DataError> {
    let grammar = StoryGrammar::built_in()?;
    let mut manifest = Manifest {
        options: manifest_options(options),
        ..Manifest::new()
    };
    for (split, tokens) in [(Split::Train, options.train_tokens), (Split::Val, options.val_tokens)] {
        *manifest.split_mut(split) = write_split(dir, &grammar, split, options.seed, tokens)?;
    }
    manifest.write(dir)?;
    Ok(manifest)
}

/// Writes whole stories until there are at least `tokens` tokens.
fn write_split(
    dir: &Path,
    grammar: &StoryGrammar,
    split: Split,
    seed: u64,
    tokens: u64,
) -> Result<SplitManifest, DataError> {
    let path = dir.join(format!("demo_{split}_000000.bin"));
    let tokenizer = Tokenizer::gpt2();
    let mut rng = SplitMix64::new(mix2(seed, split as u64));
    let mut shard = ShardWriter::create(&path)?;
    let (mut documents, mut nats) = (0, 0.0);
    while documents == 0 || shard.tokens() < tokens {
        let story = grammar.sample(&mut rng);
        shard.push(END_OF_TEXT)?;
        shard.extend(&tokenizer.encode(&story.text))?;
        documents += 1;
        nats += story.nats;
    }
    let tokens = shard.finish()?;
    Ok(SplitManifest {
        documents,
        tokens,
        // Logarithms differ in the last bits between platforms, and the manifest must not.
        entropy_nats_per_token: Some((nats / tokens as f64 * 1e6).round() / 1e6),
        shards: vec![ShardManifest::of_file(&path, tokens)?],
    })
}

fn manifest_options(options: &DemoOptions) -> BTreeMap<String, String> {
    let grammar = sha256(STORIES.as_bytes());
    [
        (SEED, options.seed.to_string()),
        ("train-tokens", options.train_tokens.to_string()),
        ("val-tokens", options.val_tokens.to_string()),
        (GRAMMAR, grammar),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The manifest of the corpus in `dir`, if it is the one that `options` ask for.
fn whole(dir: &Path, options: &DemoOptions) -> Result<Option<Manifest>, DataError> {
    match Manifest::read(dir)? {
        Some(manifest) if is_whole(dir, &manifest, options)? => Ok(Some(manifest)),
        _ => Ok(None),
    }
}

/// Whether `dir` holds the corpus that `options` ask for, with every byte as it was written.
fn is_whole(dir: &Path, manifest: &Manifest, options: &DemoOptions) -> Result<bool, DataError> {
    if manifest.options != manifest_options(options) {
        return Ok(false);
    }
    for split in Split::ALL {
        for shard in &manifest.split(split).shards {
            let path = dir.join(&shard.file);
            if !path.is_file() || ShardManifest::of_file(&path, shard.tokens)? != *shard {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Removes an older demo corpus: the files that its manifest names, and nothing else. A process that has opened them keeps
/// them.
fn remove_demo(dir: &Path, manifest: &Manifest) -> Result<(), DataError> {
    if !manifest.options.contains_key(SEED) || !manifest.options.contains_key(GRAMMAR) {
        return Err(DataError::NotDemoData {
            path: dir.to_path_buf(),
            found: MANIFEST_FILE.to_owned(),
        });
    }
    let shards = Split::ALL
        .into_iter()
        .flat_map(|split| &manifest.split(split).shards)
        .map(|shard| shard.file.as_str());
    // The manifest goes last: until then the directory is known for what it is.
    for name in shards.chain([MANIFEST_FILE]) {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(DataError::io("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Only an empty directory, or none, is replaced.
fn refuse_other_files(dir: &Path) -> Result<(), DataError> {
    match fs::read_dir(dir).map(|mut entries| entries.next()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) | Ok(Some(Err(error))) => Err(DataError::io("list", dir)(error)),
        Ok(None) => fs::remove_dir(dir).map_err(DataError::io("replace", dir)),
        Ok(Some(Ok(entry))) => {
            let found = entry.file_name().to_string_lossy().into_owned();
            Err(DataError::NotDemoData {
                path: dir.to_path_buf(),
                found,
            })
        }
    }
}

/// Next to `dir`, which must be absent or empty before the rename.
fn lock_path(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".lock");
    dir.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::TokenStream;
    use crate::shard::Shard;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const SMALL: DemoOptions = DemoOptions {
        seed: 5,
        train_tokens: 3000,
        val_tokens: 1000,
    };

    fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, io::Error> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path())?,
            ));
        }
        files.sort();
        Ok(files)
    }

    #[test]
    fn the_corpus_is_the_same_everywhere() -> Outcome {
        let dir = tempfile::tempdir()?;
        let manifest = write(&dir.path().join("demo"), &SMALL)?;
        let hashes = Split::ALL.map(|split| manifest.split(split).shards[0].sha256.clone());
        // They change with the grammar only. If they differ between two machines, then a promise is broken.
        assert_eq!(
            hashes,
            [
                "94dafa45360a04576f4d3dc08993e381c4a59f547489955dfadb04494d3c7367",
                "23c3c8a092c72f4a66e1b6c9e6129274501fc97112b1df10cd7b0edbdebd788c"
            ]
        );
        write(&dir.path().join("again"), &SMALL)?;
        assert_eq!(files(&dir.path().join("demo"))?, files(&dir.path().join("again"))?);
        let other = write(&dir.path().join("other"), &DemoOptions { seed: 6, ..SMALL })?;
        assert_ne!(other.train.shards[0].sha256, manifest.train.shards[0].sha256);
        Ok(())
    }

    #[test]
    fn the_floor_is_the_loss_of_a_model_that_knows_the_grammar() -> Outcome {
        let dir = tempfile::tempdir()?;
        let dir = dir.path().join("demo");
        let manifest = write(&dir, &SMALL)?;
        let grammar = StoryGrammar::built_in()?;
        for split in Split::ALL {
            let shard = Shard::open(dir.join(format!("demo_{split}_000000.bin")))?;
            let tokens = shard.tokens()?;
            assert_eq!(tokens[0], END_OF_TEXT);
            let stories: Vec<String> = tokens[1..]
                .split(|&token| token == END_OF_TEXT)
                .map(|story| Tokenizer::gpt2().decode(story))
                .collect();
            let known = manifest.split(split);
            assert_eq!(
                (known.documents, known.tokens),
                (stories.len() as u64, shard.len() as u64)
            );
            let nats: Vec<f64> = stories.iter().filter_map(|story| grammar.recognise(story)).collect();
            assert_eq!(nats.len(), stories.len());
            let floor = nats.iter().sum::<f64>() / shard.len() as f64;
            assert!(
                known
                    .entropy_nats_per_token
                    .is_some_and(|entropy| (entropy - floor).abs() < 1e-6),
                "{floor}"
            );
            assert!((0.5..1.1).contains(&floor), "{floor}");
        }
        Ok(())
    }

    #[test]
    fn stories_are_short_and_their_tokenisation_is_canonical() -> Outcome {
        let grammar = StoryGrammar::built_in()?;
        let tokenizer = Tokenizer::gpt2();
        let mut rng = SplitMix64::new(3);
        let mut distinct = std::collections::HashSet::new();
        for _ in 0..5000 {
            let story = grammar.sample(&mut rng);
            let tokens = tokenizer.encode(&story.text);
            assert!((35..=125).contains(&tokens.len()), "{}: {}", tokens.len(), story.text);
            assert_eq!(tokenizer.decode(&tokens), story.text);
            distinct.extend(tokens);
        }
        assert!((250..=450).contains(&distinct.len()), "{}", distinct.len());
        Ok(())
    }

    #[test]
    fn a_corpus_that_fits_is_kept_and_another_is_replaced() -> Outcome {
        let parent = tempfile::tempdir()?;
        let dir = parent.path().join("demo");
        fs::create_dir(&dir)?;
        let manifest = write(&dir, &SMALL)?;
        let modified = |name: &str| fs::metadata(dir.join(name)).and_then(|data| data.modified());
        let before = modified(MANIFEST_FILE)?;
        assert_eq!(write(&dir, &SMALL)?, manifest);
        assert_eq!(modified(MANIFEST_FILE)?, before);

        // A damaged shard is made again.
        let whole = files(&dir)?;
        fs::write(dir.join("demo_val_000000.bin"), "damaged")?;
        assert_eq!(write(&dir, &SMALL)?, manifest);
        assert_eq!(files(&dir)?, whole);

        let larger = write(
            &dir,
            &DemoOptions {
                train_tokens: 4000,
                ..SMALL
            },
        )?;
        assert!(larger.train.tokens >= 4000 && larger.val == manifest.val);
        assert_eq!(TokenStream::open(&dir, Split::Train)?.len(), larger.train.tokens);
        // Nothing is left next to it.
        assert_eq!(fs::read_dir(parent.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn several_at_once_make_one_corpus() -> Outcome {
        let parent = tempfile::tempdir()?;
        let dir = parent.path().join("demo");
        // What a killed process left.
        fs::create_dir(parent.path().join(".demo.partial"))?;
        fs::write(parent.path().join(".demo.partial/demo_train_000000.bin.tmp"), "half")?;
        let manifests: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| write(&dir, &SMALL))).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok()?.ok())
                .collect()
        });
        assert_eq!(manifests.len(), 3);
        assert!(manifests.iter().all(|manifest| *manifest == manifests[0]));
        assert_eq!(fs::read_dir(parent.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn other_data_is_left_alone() -> Outcome {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("train.bin"), [1, 0])?;
        let error = write(dir.path(), &SMALL).unwrap_err();
        assert!(
            matches!(&error, DataError::NotDemoData { found, .. } if found == "train.bin"),
            "{error}"
        );
        Manifest::new().write(dir.path())?;
        let error = write(dir.path(), &SMALL).unwrap_err();
        assert!(
            matches!(&error, DataError::NotDemoData { found, .. } if found == MANIFEST_FILE),
            "{error}"
        );
        assert_eq!(fs::read(dir.path().join("train.bin"))?, [1, 0]);
        Ok(())
    }
}
