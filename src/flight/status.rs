//! The table from SQLSTATE to gRPC's codes.

use promontory_sql::QueryError;
use tonic::{Code, Status};

/// Most that a message may be, bytes: it travels in a header, for which clients have limits.
const MAX_MESSAGE_BYTES: usize = 4096;

/// `error` as a client hears it; the SQLSTATE is in the message.
pub(super) fn of(error: &QueryError) -> Status {
    let code = match error.sqlstate.as_str() {
        "57014" => Code::DeadlineExceeded,
        "57P01" | "57P03" => Code::Unavailable,
        "42501" => Code::PermissionDenied,
        "42P01" | "58P01" => Code::NotFound,
        "0A000" => Code::Unimplemented,
        "XX001" => Code::DataLoss,
        code if code.starts_with("28") => Code::Unauthenticated,
        code if code.starts_with("53") || code.starts_with("54") => Code::ResourceExhausted,
        code if code.starts_with("XX") => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut message = error.message.clone();
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push('…');
    }
    Status::new(code, format!("{message} (SQLSTATE {})", error.sqlstate))
}

/// What cannot be done here.
pub(super) fn unsupported(what: &str) -> Status {
    Status::unimplemented(format!("{what} (SQLSTATE 0A000)"))
}

/// A request that makes no sense.
pub(super) fn malformed(what: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{what} (SQLSTATE 08P01)"))
}
