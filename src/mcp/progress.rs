//! `notifications/progress` of a call that waits.

/// Where to report that a call is still waiting.
#[derive(Debug)]
pub struct Progress {
    token: Box<str>,
    ticks: u32,
}

impl Progress {
    pub(super) fn new(token: &str) -> Self {
        Self { token: token.into(), ticks: 0 }
    }

    /// The next notification: larger than the one before, as the protocol asks.
    pub fn tick(&mut self) -> String {
        self.ticks += 1;
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":{},"message":"still waiting"}}}}"#,
            self.token, self.ticks
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_grows_and_echoes_the_token_in_its_type() {
        for token in ["\"t\"", "7"] {
            let mut progress = Progress::new(token);
            let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
            let (one, two) = (read(progress.tick()), read(progress.tick()));
            assert_eq!(one["params"]["progressToken"].to_string(), token);
            assert!(two["params"]["progress"].as_u64() > one["params"]["progress"].as_u64());
        }
    }
}
