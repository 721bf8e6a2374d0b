//! Classifies errors of the AWS SDK, as far as all AWS services agree.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tallybus_sdk::Fault;
use tallybus_sdk::text::brief;

use super::dump::without_dump;

/// An error of the SDK as plain values.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The remedy. A refusal concerns this one request; only its sender knows what that means for the batch.
    pub(crate) fault: Fault,
    /// Whether the service throttles.
    pub(crate) is_throttled: bool,
    /// AWS's error code: `ThrottlingException`.
    pub(crate) code: Option<String>,
    /// Whether something other than the service answered.
    pub(crate) is_foreign: bool,
}

impl Failure {
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        match error {
            SdkError::ServiceError(service) if service.raw().status().is_success() => Self::foreign(service.raw()),
            SdkError::ResponseError(response) if response.raw().status().is_success() => Self::foreign(response.raw()),
            SdkError::ServiceError(service) => {
                let (error, status) = (service.err(), service.raw().status().as_u16());
                Self::answered(error.code(), status, error.message().unwrap_or("no message"))
            }
            SdkError::TimeoutError(_) => Self::unanswered(Fault::retry("no answer in time")),
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                let text = format!("unreadable answer (status {status}): {}", chain(error));
                Self::unanswered(Fault::retry(text))
            }
            other => {
                let text = chain(other);
                Self::unanswered(match cause::<CredentialsError>(other) {
                    Some(CredentialsError::ProviderTimedOut(_)) => Fault::retry(text),
                    Some(_) => Fault::operator(text),
                    None if matches!(other, SdkError::ConstructionFailure(_)) => Fault::operator(text),
                    None => Fault::retry(text),
                })
            }
        }
    }

    /// An error that the service answered.
    pub(crate) fn answered(code: Option<&str>, status: u16, message: &str) -> Self {
        let message = without_dump(message);
        let text = format!("{} ({status}): {message}", code.unwrap_or("unnamed error"));
        let (fault, is_throttled) = match class(code, status) {
            Class::Throttled => (Fault::retry(text), true),
            Class::Retry => (Fault::retry(text), false),
            Class::Operator => (Fault::operator(text), false),
            Class::Request => (Fault::refused(text), false),
        };
        Self { fault, is_throttled, code: code.map(str::to_owned), is_foreign: false }
    }

    /// An error without an answer of the service.
    pub(crate) fn unanswered(fault: Fault) -> Self {
        Self { fault, is_throttled: false, code: None, is_foreign: false }
    }

    /// An answer that reports success in a form which the service never uses. It is complete: the connector reads whole bodies.
    fn foreign(answer: &HttpResponse) -> Self {
        let body = brief(&String::from_utf8_lossy(answer.body().bytes().unwrap_or_default()), &[]);
        let fault = Fault::operator(format!(
            "the server answers, but not as AWS does: it answered {}: {body}; check `endpoint` and what is between it and this program",
            answer.status().as_u16()
        ));
        Self { is_foreign: true, ..Self::unanswered(fault) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.reason())
    }
}

/// Classifies an AWS error by code and status.
enum Class {
    Throttled,
    Retry,
    Operator,
    Request,
}

fn class(code: Option<&str>, status: u16) -> Class {
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
        | "BandwidthLimitExceeded" => Class::Throttled,
        "RequestTimeout"
        | "RequestTimeoutException"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Class::Retry,
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
        | "RequestExpired" => Class::Operator,
        _ if status == 429 => Class::Throttled,
        _ if status >= 500 || status == 408 => Class::Retry,
        _ if matches!(status, 401 | 403 | 404) => Class::Operator,
        _ => Class::Request,
    }
}

/// The innermost causes say what happened, the outermost only that something did.
fn chain(error: &dyn Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = without_dump(&error.to_string());
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
