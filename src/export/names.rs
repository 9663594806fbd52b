//! File names that are safe on any disk and still say the metric.

use std::collections::BTreeSet;

/// Longest stem in bytes; file systems stop at 255 with the ending.
const MAX_STEM_BYTES: usize = 200;

/// One `<metric>.parquet` per metric, all different.
///
/// Letters, digits, `_`, `-`, `.` and `:` stay; every other byte becomes `%XX`, and so does a leading
/// dot. What is too long or would differ in case only gets a number.
pub(crate) fn file_names<'a>(metrics: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    metrics
        .into_iter()
        .map(|metric| {
            let stem = stem(metric);
            let mut name = format!("{stem}.parquet");
            let mut n = 1;
            while !taken.insert(name.to_lowercase()) {
                n += 1;
                name = format!("{stem}~{n}.parquet");
            }
            name
        })
        .collect()
}

fn stem(metric: &str) -> String {
    let mut out = String::with_capacity(metric.len());
    for (i, b) in metric.bytes().enumerate() {
        let safe = b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':') || (b == b'.' && i > 0);
        let piece = if safe { char::from(b).to_string() } else { format!("%{b:02X}") };
        if out.len() + piece.len() > MAX_STEM_BYTES {
            break;
        }
        out.push_str(&piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_readable_and_never_leave_the_directory() {
        let names = file_names(["up", "job:rate5m", "../etc/passwd", "é", "UP", ".x"]);
        assert_eq!(
            names,
            [
                "up.parquet",
                "job:rate5m.parquet",
                "%2E.%2Fetc%2Fpasswd.parquet",
                "%C3%A9.parquet",
                "UP~2.parquet",
                "%2Ex.parquet"
            ]
        );
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = ("a".repeat(300), format!("{}b", "a".repeat(300)));
        let names = file_names([a.as_str(), b.as_str()]);
        assert!(names.iter().all(|n| n.len() < 255) && names[0] != names[1]);
    }
}
