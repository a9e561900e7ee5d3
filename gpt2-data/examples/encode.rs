//! Measures how fast one thread encodes text:
//!
//! ```sh
//! cargo run --release -p gpt2-data --example encode -- book.txt code.txt
//! ```
//!
//! The first run of a file fills the caches of the thread and is reported apart from the others.

// A program prints.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use gpt2_data::Tokenizer;

/// Runs after the first.
const RUNS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let tokenizer = Tokenizer::gpt2();
    tokenizer.encode("");
    println!("opened in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("file, MB, tokens, MB/s: first run, median [lowest, highest] of {RUNS}");
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path)?;
        let megabytes = text.len() as f64 / 1e6;
        let mut tokens = 0;
        let mut run = || {
            let start = Instant::now();
            tokens = tokenizer.encode(&text).len();
            megabytes / start.elapsed().as_secs_f64()
        };
        let first = run();
        let mut rates: Vec<f64> = (0..RUNS).map(|_| run()).collect();
        rates.sort_by(f64::total_cmp);
        println!(
            "{path}, {megabytes:.1}, {tokens}, {first:.1}, {:.1} [{:.1}, {:.1}]",
            rates[RUNS / 2],
            rates[0],
            rates[RUNS - 1]
        );
    }
    Ok(())
}
