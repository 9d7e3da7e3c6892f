//! Any arguments to any tool: it refuses in words, or what it answers fits its schema.
#![no_main]

use std::{cell::OnceCell, collections::HashMap};

use jsonschema::Validator;
use libfuzzer_sys::fuzz_target;
use mcp_messaging_fuzz::House;
use serde_json::Value;

struct Tried {
    house: House,
    schemas: HashMap<&'static str, Validator>,
}

thread_local! {
    static TRIED: OnceCell<Tried> = const { OnceCell::new() };
}

fn begin() -> Tried {
    let house = House::new();
    let schema = |tool: &Value| {
        jsonschema::draft202012::new(&tool["outputSchema"]).expect("a valid schema")
    };
    let schemas = house.tools.all().iter().map(|tool| (tool.name(), schema(&tool.definition())));
    Tried { schemas: schemas.collect(), house }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, json)) = data.split_first() else { return };
    let Ok(Value::Object(arguments)) = serde_json::from_slice(json) else { return };
    TRIED.with(|tried| {
        let Tried { house, schemas } = tried.get_or_init(begin);
        let tool = &house.tools.all()[usize::from(*which) % house.tools.all().len()];
        let _waits = tool.may_wait(&arguments);
        let _inside = house.runtime.enter(); // for what is given back when the answer is dropped
        let answer = house.runtime.block_on(tool.call(arguments, &house.context));
        match answer {
            Ok(outcome) => match &outcome.structured {
                Some(structured) => {
                    let value = serde_json::from_str(structured.get()).expect("JSON");
                    if let Err(error) = schemas[tool.name()].validate(&value) {
                        panic!("{}: {error} in {value}", tool.name());
                    }
                }
                None => assert!(outcome.is_error && !outcome.text.is_empty(), "{outcome:?}"),
            },
            Err(error) => panic!("{}: memory does not fail: {error}", tool.name()),
        }
    });
});
