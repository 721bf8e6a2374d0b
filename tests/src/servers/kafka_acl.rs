//! Kafka's access control lists, set through its protocol: its own tool takes two seconds for each.

use anyhow::{Context, Result, bail, ensure};

use super::kafka::ask;

/// A right of a user on a topic or group of exactly this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaAcl {
    /// Whose, as `User:alice`.
    pub principal: String,
    /// `topic` or `group`.
    pub resource: String,
    /// The topic's or group's name.
    pub name: String,
    /// As Kafka's own tool names it: `Read`.
    pub operation: String,
}

impl KafkaAcl {
    pub(super) fn set(&self, port: u16, granted: bool) -> Result<()> {
        const CREATE: i16 = 30;
        const DELETE: i16 = 31;
        const EXACT_NAME: u8 = 3;
        const ALLOW: u8 = 3;
        let kind = match self.resource.as_str() {
            "topic" => 2,
            "group" => 3,
            other => bail!("rights on a {other} cannot be set"),
        };
        let operation = match self.operation.as_str() {
            "Read" => 3,
            "Write" => 4,
            "Create" => 5,
            "Describe" => 8,
            "DescribeConfigs" => 10,
            other => bail!("the operation {other} cannot be granted"),
        };
        // One creation, or one filter: both have the same fields in version 1.
        let mut body = 1i32.to_be_bytes().to_vec();
        body.push(kind);
        text(&mut body, &self.name)?;
        body.push(EXACT_NAME);
        text(&mut body, &self.principal)?;
        text(&mut body, "*")?;
        body.extend([operation, ALLOW]);
        // The answer's size, the request's number, how long it was throttled, one result, its error.
        let answer: [u8; 18] = ask(port, if granted { CREATE } else { DELETE }, 1, &body)?;
        let error = i16::from_be_bytes([answer[16], answer[17]]);
        ensure!(error == 0, "{self:?}, granted: {granted}: the broker answers with error {error}");
        Ok(())
    }
}

fn text(body: &mut Vec<u8>, text: &str) -> Result<()> {
    body.extend(i16::try_from(text.len()).context("too long")?.to_be_bytes());
    body.extend(text.as_bytes());
    Ok(())
}
