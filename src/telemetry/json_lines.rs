//! One JSON object a line, written as it is read.
//!
//! The same members as the JSON of `tracing-subscriber` with its events flattened, at half of its
//! cost: every request logs one line, so the formatter is part of every request.

use std::fmt::{self, Debug, Display, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::model::{Clock, SystemClock, rfc3339_micros};

/// The format.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str("{\"timestamp\":\"")?;
        writer.write_str(&rfc3339_micros(SystemClock.now_us()))?;
        for piece in ["\",\"level\":\"", event.metadata().level().as_str(), "\""] {
            writer.write_str(piece)?;
        }
        let mut members = Members { writer, result: Ok(()) };
        event.record(&mut members);
        members.result?;
        members.text("target", |text| text.write_str(event.metadata().target()))?;
        members.writer.write_str("}\n")
    }
}

/// Writes what stands between the quotes of a JSON string.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if piece.bytes().all(plain) {
            return self.0.write_str(piece);
        }
        let quoted = serde_json::to_string(piece).map_err(|_| fmt::Error)?;
        self.0.write_str(&quoted[1..quoted.len() - 1])
    }
}

struct Members<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Members<'_> {
    fn text(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Escaped<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        for piece in [",\"", name, "\":\""] {
            self.writer.write_str(piece)?;
        }
        value(&mut Escaped(&mut self.writer))?;
        self.writer.write_char('"')
    }

    fn number(&mut self, field: &Field, value: impl Display) {
        let mut write = || {
            for piece in [",\"", field.name(), "\":"] {
                self.writer.write_str(piece)?;
            }
            write!(self.writer, "{value}")
        };
        let written = write();
        self.result = self.result.and(written);
    }
}

/// Names of fields stand in our code: none needs to be escaped.
impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let written = self.text(field.name(), |text| text.write_str(value));
        self.result = self.result.and(written);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field, serde_json::Value::from(value)); // what is not finite is null
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = self.text(field.name(), |text| write!(text, "{value:?}"));
        self.result = self.result.and(written);
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;
    use serde_json::Value;
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(layer: impl Layer<tracing_subscriber::Registry> + Send + Sync, sink: &Sink) -> Value {
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("it said \"no\"\n\u{1}");
            tracing::warn!(
                error = %error, kind = ?Some(1), "error.type" = "", http.status = 200_u16,
                below = -3, is = true, share = 0.5, not = f64::NAN, none = None::<u64>,
                "an \\ event"
            );
        });
        let line = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
        let mut line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["timestamp"].take().as_str().unwrap().ends_with('Z'));
        line
    }

    #[test]
    fn a_line_has_what_the_library_would_write() {
        let (own, theirs) = (Sink::default(), Sink::default());
        let (one, other) = (own.clone(), theirs.clone());
        let lines = || tracing_subscriber::fmt::layer();
        let own_layer = lines().with_writer(move || one.clone()).event_format(JsonLines);
        let json = lines().with_writer(move || other.clone()).json().flatten_event(true);
        let theirs_layer = json.with_current_span(false).with_span_list(false);
        assert_eq!(logged(own_layer, &own), logged(theirs_layer, &theirs));
    }
}
