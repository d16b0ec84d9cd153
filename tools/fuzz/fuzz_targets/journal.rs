//! libFuzzer's way to [`herd_fuzz::journal`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| herd_fuzz::journal(data));
