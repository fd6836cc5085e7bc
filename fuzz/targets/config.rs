//! The agent's file of actions, and its configuration: taken or refused with the place.
#![no_main]

use haar_agent::Config;
use haar_agent::local::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(wrong) = Plan::parse(text) {
        assert!(!wrong.place.is_empty() && !wrong.what.is_empty());
    }
    if let Ok(config) = toml::from_str::<Config>(text) {
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
});
