//! No text makes the parser panic, and what it accepts prints to something that it accepts again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_promql::parser::{ParserOptions, format, parse, parse_duration, series};

fuzz_target!(|text: &str| {
    let options = ParserOptions::all();
    if let Ok(expr) = parse(text, &options) {
        let printed = expr.to_string();
        let again = parse(&printed, &options).expect("what is printed parses");
        assert_eq!(again.to_string(), printed);
        let _ = format(&expr);
    }
    let _ = parse_duration(text);
    // Repetitions such as `1x9999999` are bounded but slow.
    if !text.contains('x') {
        let _ = series::parse_series_description(text);
    }
});
