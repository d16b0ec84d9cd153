//! libFuzzer's way to [`herd_fuzz::link_lines`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| herd_fuzz::link_lines(data));
