//! What an error of the SDK means, as far as all of AWS agrees on it.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Who can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Less at once: the same again, later.
    Throttled,
    /// The same again, later: the service is away, or the answer was lost.
    Passing,
    /// Somebody must act: credentials, rights, something missing.
    Operator,
    /// The service refuses this very request; only who made it can tell what that means.
    Request,
}

/// An error of the SDK as plain values.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) blame: Blame,
    /// AWS's name of the error: `ThrottlingException`.
    pub(crate) code: Option<String>,
    /// For people; holds no secret of ours.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let code = service.err().code().map(str::to_owned);
                let message = service.err().message().unwrap_or("no message");
                let text = format!("{} ({status}): {message}", code.as_deref().unwrap_or("an error without a name"));
                Self { blame: blame(code.as_deref(), status), code, text }
            }
            SdkError::TimeoutError(_) => Self::passing("no answer in time".to_owned()),
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                Self::passing(format!("an answer that cannot be read (status {status}): {}", chain(error)))
            }
            other => {
                let text = chain(other);
                let blame = match cause::<CredentialsError>(other) {
                    Some(CredentialsError::ProviderTimedOut(_)) => Blame::Passing,
                    Some(_) => Blame::Operator,
                    None if matches!(other, SdkError::ConstructionFailure(_)) => Blame::Operator,
                    None => Blame::Passing,
                };
                Self { blame, code: None, text }
            }
        }
    }

    fn passing(text: String) -> Self {
        Self { blame: Blame::Passing, code: None, text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn blame(code: Option<&str>, status: u16) -> Blame {
    match code.unwrap_or_default() {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "SlowDown"
        | "BandwidthLimitExceeded" => Blame::Throttled,
        // A clock that is a little off is put right by whoever keeps it; the signature is made anew for each try.
        "RequestTimeout"
        | "RequestTimeoutException"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Blame::Passing,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "OptInRequired"
        | "NotAuthorized"
        | "ResourceNotFoundException"
        | "RequestExpired" => Blame::Operator,
        _ if status == 429 => Blame::Throttled,
        _ if status >= 500 || status == 408 => Blame::Passing,
        _ if matches!(status, 401 | 403 | 404) => Blame::Operator,
        _ => Blame::Request,
    }
}

/// The innermost causes say what happened, the outermost only that something did.
fn chain(error: &dyn Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// The first of an error's causes, itself included, that is of this type.
pub(crate) fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
