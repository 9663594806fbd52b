//! Lists of things that outlive the process, each in a file: `{"version":1,"<what>":[…]}`.

use std::io::ErrorKind;
use std::path::Path;

use promontory_tsdb::fs;
use serde_json::{Value, json};

/// The list in `file`; empty if there is no file.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn load(file: &Path, what: &str) -> Result<Vec<Value>, String> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut value: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    match value.get("version").and_then(Value::as_u64) {
        Some(1) => {}
        Some(version) => return Err(format!("version {version} is not known")),
        None => return Err("it has no version".to_owned()),
    }
    match value.get_mut(what).map(Value::take) {
        Some(Value::Array(list)) => Ok(list),
        _ => Err(format!("it has no list of {what}")),
    }
}

/// Puts `list` in the place of what `file` holds, as a whole.
///
/// # Errors
/// If the operating system refuses; the file is then as it was.
pub(super) fn store(file: &Path, what: &str, list: &[Value]) -> promontory_tsdb::Result<()> {
    let mut text = format!("{:#}", json!({ "version": 1, what: list }));
    text.push('\n');
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write_atomic(file, text.as_bytes())
}
