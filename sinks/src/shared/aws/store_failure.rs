//! Classifies errors of an object store.

use std::io::ErrorKind;

use aws_credential_types::provider::error::CredentialsError;
use tallybus_sdk::SinkError;
use tallybus_sdk::text::brief;

use super::cause;
use super::dump::without_dump;
use super::store_connector::NotS3;

/// The error and its remedy; `setting` names the setting with the place, and `secrets` are removed.
pub(crate) fn judge_store(error: &object_store::Error, setting: &str, secrets: &[&str]) -> SinkError {
    // S3 answers with a page of XML.
    let text = brief(&without_dump(&error.to_string()), secrets);
    match error {
        object_store::Error::NotFound { .. } => {
            SinkError::Halt(format!("{text}; create the bucket or directory, or correct `{setting}`"))
        }
        object_store::Error::PermissionDenied { .. } => {
            SinkError::Halt(format!("{text}; check the credentials and their permission to read and write"))
        }
        object_store::Error::Unauthenticated { .. } => match cause::<CredentialsError>(error) {
            Some(CredentialsError::ProviderTimedOut(_)) => SinkError::Unavailable(text),
            _ => SinkError::Halt(format!("{text}; check the credentials")),
        },
        // Another writer is writing the same object.
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            SinkError::Unavailable(text)
        }
        object_store::Error::Generic { .. } | object_store::Error::JoinError { .. } => generic(error, setting, text),
        _ => SinkError::Halt(text),
    }
}

/// Everything else: answers of S3 by their status, and errors of the system.
fn generic(error: &object_store::Error, setting: &str, text: String) -> SinkError {
    if let Some(status) = status(&text) {
        return match status {
            408 | 409 | 425 | 429 | 500.. => SinkError::Unavailable(text),
            404 => SinkError::Halt(format!("{text}; create the bucket, or correct `{setting}`")),
            _ => SinkError::Halt(format!("{text}; check bucket, region and credentials")),
        };
    }
    if text.contains("Received redirect") {
        return SinkError::Halt(format!("{text}; set `region` to the bucket's"));
    }
    if cause::<NotS3>(error).is_some() || text.contains("Got invalid list response") {
        return SinkError::Halt(format!(
            "{text}; the server answers, but not as S3 does: check `endpoint` and what is between it and this program"
        ));
    }
    let lasting = cause::<std::io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::PermissionDenied
                | ErrorKind::NotFound
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::InvalidFilename
                | ErrorKind::Unsupported
        )
    });
    match lasting {
        true => SinkError::Halt(format!("{text}; check that the directory is there and may be written")),
        false => SinkError::Unavailable(text),
    }
}

/// The status of S3's answer, which the store's library reports only as text.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::time::Duration;

    use super::*;

    fn halts(error: &object_store::Error) -> bool {
        matches!(judge_store(error, "path", &[]), SinkError::Halt(_))
    }

    fn of(source: Box<dyn Error + Send + Sync>) -> object_store::Error {
        object_store::Error::Generic { store: "test", source }
    }

    #[test]
    fn statuses_of_s3() {
        for (status, expected) in [
            (301, true),
            (400, true),
            (403, true),
            (404, true),
            (405, true),
            (408, false),
            (409, false),
            (429, false),
            (500, false),
            (503, false),
            (599, false),
        ] {
            let text =
                format!("Error performing PUT - Server returned non-2xx status code: {status} Because: <Error/>");
            assert_eq!(halts(&of(text.into())), expected, "{status}");
        }
        assert!(halts(&of("Received redirect without LOCATION, this normally indicates".into())));
        assert!(!halts(&of("connection closed before message completed".into())));
    }

    #[test]
    fn errors_of_the_system() {
        for (kind, expected) in [
            (ErrorKind::PermissionDenied, true),
            (ErrorKind::NotFound, true),
            (ErrorKind::NotADirectory, true),
            (ErrorKind::ReadOnlyFilesystem, true),
            (ErrorKind::StorageFull, false),
            (ErrorKind::QuotaExceeded, false),
            (ErrorKind::StaleNetworkFileHandle, false),
            (ErrorKind::ConnectionRefused, false),
            (ErrorKind::Other, false),
        ] {
            assert_eq!(halts(&of(Box::new(std::io::Error::from(kind)))), expected, "{kind}");
        }
    }

    #[test]
    fn missing_and_forbidden_halt_and_no_secret_shows() {
        let (path, source) = ("p".to_owned(), "s3cret".into());
        let error = object_store::Error::NotFound { path: path.clone(), source };
        let SinkError::Halt(reason) = judge_store(&error, "path", &["s3cret", ""]) else { panic!("no halt") };
        assert!(reason.contains("***") && !reason.contains("s3cret"), "{reason}");
        assert!(halts(&object_store::Error::PermissionDenied { path: path.clone(), source: "x".into() }));
        let slow = CredentialsError::provider_timed_out(Duration::from_secs(1));
        assert!(!halts(&object_store::Error::Unauthenticated { path: path.clone(), source: Box::new(slow) }));
        let none = CredentialsError::not_loaded("none");
        assert!(halts(&object_store::Error::Unauthenticated { path, source: Box::new(none) }));
        let long = of("é".repeat(5_000).into());
        assert!(judge_store(&long, "path", &[]).to_string().len() < 600);
    }
}
