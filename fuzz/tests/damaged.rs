//! Files that were damaged: each is an error or is read, never a panic, and takes no memory that the file is not worth.

use gpt2_fuzz::{CHOICES, CONFIG, GGUF, HELLASWAG, INDEX, LAMBADA, LLMC, Parser, SAFETENSORS, SHARD};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Files of each kind; `GPT2_MUTATIONS` sets another number.
const FILES: usize = 1_000;
/// Bytes that a parser may take of the allocator at a time, whatever the file: names, messages, tables.
const CONSTANT: u64 = 256 << 10;

fn check(parser: &'static Parser) {
    let files = std::env::var("GPT2_MUTATIONS").map_or(FILES, |files| files.parse().unwrap());
    let sound = parser.sound().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut count, mut refused) = (0, 0);
    for bytes in sound.cuts().chain((0..files).map(|_| sound.damaged(&mut rng))) {
        count += 1;
        let mut opened = Ok(());
        let memory = allocation_counter::measure(|| opened = sound.open(&bytes));
        if let Err(error) = opened {
            assert!(!error.to_string().is_empty());
            refused += 1;
        }
        let size = sound.size().unwrap();
        // The file's numbers, and once more what is made of them.
        assert!(
            memory.bytes_max <= 2 * size + CONSTANT,
            "{} bytes for {size}",
            memory.bytes_max
        );
    }
    assert!(refused > count / 2, "{refused} of {count} are refused");
}

macro_rules! check {
    ($($name:ident: $parser:expr),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(&$parser);
            }
        )*
    };
}

check! {
    safetensors: SAFETENSORS,
    config: CONFIG,
    index: INDEX,
    llmc: LLMC,
    gguf: GGUF,
    hellaswag: HELLASWAG,
    choices: CHOICES,
    lambada: LAMBADA,
    shard: SHARD,
}
