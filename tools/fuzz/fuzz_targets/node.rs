//! libFuzzer's way to [`herd_fuzz::node`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| herd_fuzz::node(data));
