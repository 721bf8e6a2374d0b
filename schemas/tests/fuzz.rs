//! A short, seeded run of the fuzz targets' bodies over mutated golden messages; `fuzz/` has the long ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

mod support;

use support::bodies;
use support::rng::Rng;
use tallybus_schemas::Encoding;

const SEED: u64 = 0x7a11_7b05;
const ROUNDS: usize = 200_000;

/// What the decoders look out for.
const TOKENS: [&[u8]; 26] = [
    b"\\",
    b"\"",
    b",",
    b" ",
    b"=",
    b"\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"value",
    b"\"tags\":{",
    b"null",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x08\x01",
    b"\x42\x00",
    b"\x6a\x01\x00",
    b"\x70\x01",
    b"#",
];

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

fn mutate(rng: &mut Rng, message: &mut Vec<u8>, other: &[u8]) {
    let at = below(rng, message.len() + 1).min(message.len());
    let end = (at + below(rng, 8)).min(message.len());
    match below(rng, 8) {
        0 if at < message.len() => message[at] ^= 1 << below(rng, 8),
        1 if at < message.len() => message[at] = below(rng, 256) as u8,
        2 => drop(message.drain(at..end)),
        3 => drop(message.splice(at..end, TOKENS[below(rng, TOKENS.len())].iter().copied())),
        4 => drop(message.splice(at..at, TOKENS[below(rng, TOKENS.len())].iter().copied())),
        5 => message.truncate(at),
        6 => {
            let copied = message[at..end].to_vec();
            drop(message.splice(at..at, copied));
        }
        _ => {
            let from = below(rng, other.len());
            let until = (from + below(rng, 40)).min(other.len());
            drop(message.splice(at..end, other[from..until].iter().copied()));
        }
    }
}

fn run(encoding: Encoding) {
    let body = support::body(encoding);
    let corpus: Vec<Vec<u8>> = support::golden(encoding).into_iter().map(|(_, message)| message).collect();
    let mut rng = Rng::new(SEED);
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let mut message = corpus[below(&mut rng, corpus.len())].clone();
        for _ in 0..=below(&mut rng, 4) {
            let other = below(&mut rng, corpus.len());
            mutate(&mut rng, &mut message, &corpus[other]);
        }
        body(&message);
        accepted += usize::from(bodies::decode(Some(encoding), &message).is_ok());
    }
    // Mutants that are all refused, or none, would test one half only.
    assert!(accepted > ROUNDS / 100 && accepted < ROUNDS * 99 / 100, "seed {SEED:#x}: {accepted} of {ROUNDS} accepted");
}

#[test]
fn native_briefly() {
    run(Encoding::Native);
}

#[test]
fn json_briefly() {
    run(Encoding::Json);
}

#[test]
fn influx_briefly() {
    run(Encoding::Influx);
}
