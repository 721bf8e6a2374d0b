//! Errors of the AWS SDK that repeat a whole answer as Rust prints it: the service's message instead.

/// Where such a dump is recognised: the body of an answer.
const BODY: &str = "SdkBody {";

/// The text without the dump of an answer; with the message of the service, where the body has one.
pub(super) fn without_dump(text: &str) -> String {
    let Some(body_at) = text.find(BODY) else { return text.to_owned() };
    let body = &text[body_at..];
    let told = text[..dump_start(&text[..body_at])].trim_end_matches([' ', ':', '(']);
    match message(body).filter(|message| !told.contains(message.as_str())) {
        Some(message) if told.is_empty() => message,
        Some(message) => format!("{told}: {message}"),
        None if told.is_empty() => "an answer that is not understood".to_owned(),
        None => told.to_owned(),
    }
}

/// Where the dump begins in the text before its body: at its first type, `Name {` or `Name(`.
fn dump_start(text: &str) -> usize {
    let is_start = |at: usize| {
        let word = text[at..].find([' ', '(']).map_or(&text[at..], |end| &text[at..at + end]);
        let after = &text[at + word.len()..];
        word.starts_with(|first: char| first.is_ascii_uppercase())
            && word.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
            && (after.starts_with(" {") || after.starts_with('('))
    };
    let starts = text.match_indices([' ', '(', ':']).map(|(at, _)| at + 1);
    std::iter::once(0).chain(starts).find(|at| is_start(*at)).unwrap_or(text.len())
}

/// The message in a dumped body of JSON or XML.
fn message(body: &str) -> Option<String> {
    let plain = body.replace("\\\"", "\"");
    let between = |open: &str, close: &str| {
        let (_, rest) = plain.split_once(open)?;
        let (message, _) = rest.split_once(close)?;
        (!message.trim().is_empty()).then(|| message.trim().to_owned())
    };
    ["\"message\":\"", "\"Message\":\""]
        .iter()
        .find_map(|open| between(open, "\""))
        .or_else(|| between("<Message>", "</Message>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_message_stands_where_the_answer_was_dumped() {
        let dumped = "service error (ServiceError(ServiceError { source: Unhandled(Unhandled), raw: Response { status: \
                      StatusCode(400), body: SdkBody { inner: Once(Some(b\"{\\\"message\\\":\\\"the role does not exist\\\"}\")), \
                      retryable: true } } }))";
        assert_eq!(without_dump(dumped), "service error: the role does not exist");
        let xml = "unhandled: Unhandled { body: SdkBody { inner: Once(Some(b\"<Error><Message>Access Denied</Message></Error>\")) } }";
        assert_eq!(without_dump(xml), "unhandled: Access Denied");
        let nothing = "ServiceError { raw: SdkBody { inner: Once(Some(b\"\")) } }";
        assert_eq!(without_dump(nothing), "an answer that is not understood");
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["dispatch failure: io error: refused", "", "Body { }"] {
            assert_eq!(without_dump(text), text);
        }
    }
}
