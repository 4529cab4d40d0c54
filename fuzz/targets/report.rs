#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forkd::fuzzing::report(input));
