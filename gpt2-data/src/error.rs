//! Everything that can go wrong with data, one variant for each way.
//!
//! Each message is one line: the file or option, what was found, what was expected, and where it helps, the fix.
//! Options are named as their fields are. How errors are printed, by which flags they are avoided, and which exit code
//! follows is the business of the command line.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use gpt2_base::Invalid;

use crate::format::{LLAMA3_MAGIC, SHARD_MAGIC, SHARD_VERSION, Split, VOCAB_SIZE};

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused to read, write or list something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: `read`, `create`, `rename`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    // Shards
    /// A token file holds no tokens.
    #[error("{} is empty: a shard needs at least one token", path.display())]
    EmptyShard {
        /// The shard.
        path: PathBuf,
    },
    /// A file of 16-bit tokens has an odd number of bytes.
    #[error("{} has an odd size ({bytes} bytes), but tokens are two bytes each: the file is damaged or is not a token file", path.display())]
    OddSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The size does not agree with the token count in the header.
    #[error(
        "{} is {}: its header promises {tokens} tokens, which is {expected} bytes, but the file has {found}; copy it again",
        path.display(), if found < expected { "truncated" } else { "too long" }
    )]
    ShardSize {
        /// The shard.
        path: PathBuf,
        /// The token count in the header.
        tokens: u64,
        /// The size that follows from it.
        expected: u64,
        /// The size on disk.
        found: u64,
    },
    /// The file has a header, but another program's.
    #[error("{} is not a token shard: its magic number is {found} ({what}), expected {SHARD_MAGIC}", path.display())]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// The first number of the file.
        found: i32,
        /// What that number stands for, as far as it is known.
        what: &'static str,
    },
    /// The shard has a version that we cannot read.
    #[error("{} is a token shard of version {found}, expected {SHARD_VERSION}", path.display())]
    ShardVersion {
        /// The shard.
        path: PathBuf,
        /// The version in the header.
        found: i32,
    },
    /// The shard was made with Llama 3's tokenizer.
    #[error(
        "{} holds Llama 3 tokens (magic number {LLAMA3_MAGIC}), not GPT-2's: prepare the text again with `gpt2 data prepare`",
        path.display()
    )]
    Llama3Shard {
        /// The shard.
        path: PathBuf,
    },
    /// A shard with a header holds a token that GPT-2 does not have.
    #[error(
        "{} holds token {token} at position {position}, but GPT-2's tokens are below {VOCAB_SIZE}: the shard is damaged or \
         was made with another tokenizer",
        path.display()
    )]
    TokenOutOfRange {
        /// The shard.
        path: PathBuf,
        /// Where, counted in tokens from 0.
        position: usize,
        /// The token found.
        token: u16,
    },
    /// A file without our header whose content cannot be GPT-2 tokens either.
    #[error(
        "{} is not a token file: it has no shard header (magic number {SHARD_MAGIC}, found {found_magic}), and as headerless \
         16-bit tokens it holds {token} at position {position}, where GPT-2's are below {VOCAB_SIZE}",
        path.display()
    )]
    NotATokenFile {
        /// The file.
        path: PathBuf,
        /// The first number of the file.
        found_magic: i32,
        /// The first token out of range, counted from 0.
        position: usize,
        /// That token.
        token: u16,
    },
    /// A headerless file of 32-bit or 64-bit numbers.
    #[error(
        "{} looks like 32-bit tokens (every other 16-bit number is 0), expected 16-bit ones: prepare the text again with \
         `gpt2 data prepare`, or convert it if the tokens are GPT-2's",
        path.display()
    )]
    WideTokens {
        /// The file.
        path: PathBuf,
    },
    /// A NumPy array that was saved with its header.
    #[error("{} is a NumPy array with a header (.npy), expected bare tokens: write them with `tofile`", path.display())]
    NumpyFile {
        /// The file.
        path: PathBuf,
    },
    /// A headerless file of another vocabulary.
    #[error(
        "{} is not of GPT-2's tokens: {} lies next to it, the vocabulary of character-level data (nanoGPT's): prepare the \
         text itself with `gpt2 data prepare`",
        path.display(), vocabulary.display()
    )]
    OtherVocabulary {
        /// The file.
        path: PathBuf,
        /// The vocabulary.
        vocabulary: PathBuf,
    },
    /// A shard has become shorter since it was opened.
    #[error("{} was cut short while it was in use: it had {expected} bytes; copy it again", path.display())]
    ShardChanged {
        /// The shard.
        path: PathBuf,
        /// Its size when it was opened.
        expected: u64,
    },
    /// More tokens than the 32-bit count in the header can say.
    #[error("{} cannot hold {tokens} tokens: the header counts to {limit}; use smaller shards", path.display())]
    ShardTooLong {
        /// The shard.
        path: PathBuf,
        /// How many were to be written.
        tokens: u64,
        /// The format's limit.
        limit: u64,
    },

    // Preparation: options and inputs
    /// An option has a value that cannot work.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The threads that encode could not be started.
    #[error("cannot start {threads} threads: {source}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's reason.
        source: rayon::ThreadPoolBuildError,
    },
    /// An input does not exist.
    #[error("input {} does not exist", path.display())]
    MissingInput {
        /// The path as given.
        path: PathBuf,
    },
    /// A glob or directory yields no file that can be read as text.
    #[error("input {input} has no text to read: expected files ending in {expected}")]
    NothingMatched {
        /// The input as given.
        input: String,
        /// The endings that tell a format.
        expected: &'static str,
    },
    /// A glob pattern that is not one.
    #[error("input {pattern} is not a valid pattern: {source}")]
    BadPattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// The same file is named twice, which would train on it twice.
    #[error("{} is among the inputs twice: name it once", path.display())]
    InputTwice {
        /// The file.
        path: PathBuf,
    },
    /// An input file has a name that says nothing about its format.
    #[error("{} has an unknown extension: expected {expected}", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
        /// The endings that tell a format.
        expected: &'static str,
    },
    /// Something that has a file's name but is a pipe, a device or a socket.
    #[error("{} is no regular file: expected one, which can be read more than once; write the content to a file", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// A link that leads nowhere, whose name tells that it should be text.
    #[error("{} is a link to {}, which does not exist: restore the file or remove the link", path.display(), target.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The inputs hold no text at all.
    #[error("the input holds no text: {sources} file(s) read, no document found")]
    EmptyInput {
        /// How many files were read.
        sources: usize,
    },
    /// The validation split leaves nothing to train on.
    #[error("the validation split takes all {tokens} tokens and leaves none to train on: make it smaller")]
    NothingLeftToTrain {
        /// All tokens of the input.
        tokens: u64,
    },

    // Preparation: file contents
    /// Text that is not UTF-8.
    #[error(
        "{} is not UTF-8 at byte {offset}: it looks like {encoding}; {}",
        path.display(),
        encoding.name().map_or("leave it out", |_| "convert it first")
    )]
    BadUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset in the text, after decompression.
        offset: u64,
        /// What it looks like.
        encoding: Encoding,
    },
    /// A value of a Parquet column that is not UTF-8.
    #[error("{} column \"{column}\" is not UTF-8 in its value {value}", path.display())]
    BadUtf8InColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Which value, from 1, nulls not counted.
        value: u64,
    },
    /// A line of a JSONL file is not a JSON object with text in the field.
    #[error("{} line {line} is not a JSON object with text: {source}", path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: u64,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A line of a JSONL file has no such field.
    #[error("{} line {line} has no field \"{field}\": name the one with the text", path.display())]
    MissingField {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: u64,
        /// The field looked for.
        field: String,
    },
    /// A Parquet file has no such column.
    #[error(
        "{} has no column \"{column}\", it has: {}; name the one with the text",
        path.display(), columns.join(", ")
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// The Parquet column does not hold text.
    #[error("{} column \"{column}\" is of type {found}, expected text (BYTE_ARRAY)", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its physical type.
        found: String,
    },
    /// A Parquet file that is packed by a method that is not read.
    #[error("{} column \"{column}\" is compressed by {codec}, expected {expected}: write the file again", path.display())]
    ParquetCodec {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The method.
        codec: String,
        /// Those that are read.
        expected: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("cannot read {} as Parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        source: parquet::errors::ParquetError,
    },

    // Preparation: the output directory
    /// The output directory holds something else.
    #[error(
        "{} already holds {found}: choose another directory, or resume if an interrupted preparation left it",
        path.display()
    )]
    OutputNotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the files found.
        found: String,
    },
    /// Resuming with other options than the preparation began with.
    #[error(
        "{} was begun with other options ({difference}): use the same, or another directory",
        path.display()
    )]
    OptionsDiffer {
        /// The directory.
        path: PathBuf,
        /// The option and both values.
        difference: String,
    },
    /// Resuming after an input changed.
    #[error("{} was begun with other inputs ({difference}): begin again in another directory", path.display())]
    SourcesDiffer {
        /// The directory.
        path: PathBuf,
        /// Which file, and how.
        difference: String,
    },
    /// A shard that an earlier run finished is not as it was left.
    #[error(
        "{} is missing or changed since it was finished: begin again in another directory",
        path.display()
    )]
    FinishedShardChanged {
        /// The shard.
        path: PathBuf,
    },

    /// Another process prepares into the same directory.
    #[error(
        "{} is in use: another preparation writes to it{}; wait for it, or choose another directory",
        path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    OutputInUse {
        /// The directory.
        path: PathBuf,
        /// The other process, if it is known.
        pid: Option<u32>,
    },

    // The manifest
    /// A manifest or progress file that does not parse.
    #[error("{} is not a valid manifest: {source}", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A directory that should hold prepared data holds none.
    #[error("{} holds no prepared data (no manifest.json, no *.bin): make some with `gpt2 data prepare`", path.display())]
    NothingPrepared {
        /// The directory.
        path: PathBuf,
    },

    // Reading for training
    /// There is no such directory of data.
    #[error("{} is not a directory: expected one that `gpt2 data prepare` made", path.display())]
    MissingDataDirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory has no shards of the split asked for.
    #[error(
        "{} has no shards named *{split}*.bin ({}): make some with `gpt2 data prepare`",
        path.display(), some_of(found)
    )]
    NoShards {
        /// The directory.
        path: PathBuf,
        /// The split looked for.
        split: Split,
        /// All names in the directory.
        found: Vec<String>,
    },
    /// The manifest names a shard that is not there.
    #[error("{} is missing, though the manifest lists it: copy the data again", path.display())]
    ShardMissing {
        /// The shard.
        path: PathBuf,
    },
    /// There is a shard that the manifest does not name.
    #[error("{} is not listed in the manifest: move it to another directory", path.display())]
    ShardUnlisted {
        /// The shard.
        path: PathBuf,
    },
    /// A shard has another token count than the manifest says.
    #[error("{} has {found} tokens, but {expected} in the manifest: copy the data again", path.display())]
    ShardTokens {
        /// The shard.
        path: PathBuf,
        /// The count in the manifest.
        expected: u64,
        /// The count in the file.
        found: u64,
    },
    /// A preparation into this directory is not finished.
    #[error(
        "{} holds an unfinished preparation: resume it with the options that it was begun with, or remove the directory",
        path.display()
    )]
    Unfinished {
        /// The directory.
        path: PathBuf,
        /// The files that are read, in order.
        sources: Vec<PathBuf>,
        /// The options, by their names.
        options: BTreeMap<String, String>,
    },
    /// A split has too few tokens for one window.
    #[error(
        "{} has {tokens} {split} tokens, but one window of `seq` {seq} takes {}: lower `seq` or add data",
        path.display(), seq + 1
    )]
    StreamTooShort {
        /// The directory.
        path: PathBuf,
        /// The split.
        split: Split,
        /// Its tokens.
        tokens: u64,
        /// Inputs in a window.
        seq: usize,
    },
    /// A split has too few windows for one optimizer step.
    #[error(
        "{} has {windows} {split} windows of `seq` {seq}, but one step takes {} sequences (`batch` {batch} x `grad-accum` \
         {grad_accum} x {world_size} ranks): lower one of them or add data",
        path.display(), batch * grad_accum * world_size
    )]
    ShorterThanStep {
        /// The directory.
        path: PathBuf,
        /// The split.
        split: Split,
        /// Its windows.
        windows: u64,
        /// Inputs in a window.
        seq: usize,
        /// Sequences in a micro-step of one rank.
        batch: usize,
        /// Micro-steps in a step.
        grad_accum: usize,
        /// Ranks.
        world_size: usize,
    },
    /// The system gives no thread to read ahead with.
    #[error("cannot start a loader thread: {source}")]
    LoaderThread {
        /// The system's reason.
        source: io::Error,
    },
    /// A thread that reads ahead has died.
    #[error("loader worker {worker} died ({reason}): was a shard changed during training?")]
    LoaderWorker {
        /// Its number from 0.
        worker: usize,
        /// Its panic message.
        reason: String,
    },

    // The demo corpus
    /// A story grammar is not well formed.
    #[error("line {line} of the story grammar: {problem}")]
    Grammar {
        /// Line number from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory for the demo corpus holds something else.
    #[error("{} holds {found}, which is not the demo corpus: choose another directory, or train on this one", path.display())]
    NotDemoData {
        /// The directory.
        path: PathBuf,
        /// One of the files found.
        found: String,
    },
}

/// What bytes that are not UTF-8 look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-16, by its byte order mark.
    Utf16,
    /// UTF-32, by its byte order mark.
    Utf32,
    /// UTF-16 without a mark, little-endian: every other byte of plain letters is 0.
    Utf16Le,
    /// UTF-16 without a mark, big-endian.
    Utf16Be,
    /// UTF-8 in which some bytes are damaged.
    DamagedUtf8,
    /// One byte a letter, as in Western Europe: ISO 8859-1.
    Latin1,
    /// The same with letters where ISO 8859-1 has control characters.
    Windows1252,
    /// No text at all.
    Binary,
}

impl Encoding {
    /// Its name for `iconv -f`, of what is text.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Utf16 => "UTF-16",
            Self::Utf32 => "UTF-32",
            Self::Utf16Le => "UTF-16LE",
            Self::Utf16Be => "UTF-16BE",
            Self::DamagedUtf8 => "UTF-8",
            Self::Latin1 => "ISO-8859-1",
            Self::Windows1252 => "WINDOWS-1252",
            Self::Binary => return None,
        })
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DamagedUtf8 => "UTF-8 with damaged bytes",
            Self::Latin1 => "Latin-1 (ISO 8859-1)",
            Self::Windows1252 => "Windows-1252",
            _ => self.name().unwrap_or("no text, but binary data"),
        })
    }
}

/// The first few of many names, for a message of one line.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0 => "the directory is empty".to_owned(),
        count if count <= SHOWN => format!("found {}", names.join(", ")),
        count => format!("found {} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

impl DataError {
    /// Wraps an I/O error together with what was attempted and where; made for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
