//! The words of our pages, in ten languages.

use std::collections::HashMap;
use std::sync::OnceLock;

use http::HeaderValue;

/// A language that our pages speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Language(&'static str);

/// The first is for everybody whose own is not among them.
const ALL: [(Language, &str); 10] = [
    (Language("en"), include_str!("texts/en.txt")),
    (Language("de"), include_str!("texts/de.txt")),
    (Language("es"), include_str!("texts/es.txt")),
    (Language("fr"), include_str!("texts/fr.txt")),
    (Language("it"), include_str!("texts/it.txt")),
    (Language("ja"), include_str!("texts/ja.txt")),
    (Language("nl"), include_str!("texts/nl.txt")),
    (Language("pl"), include_str!("texts/pl.txt")),
    (Language("pt"), include_str!("texts/pt.txt")),
    (Language("zh"), include_str!("texts/zh.txt")),
];

type Texts = HashMap<&'static str, HashMap<&'static str, &'static str>>;

fn texts() -> &'static Texts {
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let read = |text: &'static str| text.lines().filter_map(|line| line.split_once(": ")).collect();
        ALL.iter().map(|(language, text)| (language.0, read(text))).collect()
    })
}

impl Language {
    pub(crate) const ENGLISH: Self = Self("en");

    /// The one that a browser prefers of those that there are (RFC 9110 §12.5.4).
    pub(crate) fn preferred(accepted: Option<&HeaderValue>) -> Self {
        let accepted = accepted.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut best = (Self::ENGLISH, 0.0_f32);
        for range in accepted.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let found = ALL.iter().find(|(language, _)| language.0 == tag || tag == "*");
            // Of two that weigh the same the first is preferred.
            if let Some((language, _)) = found
                && weight > best.1
            {
                best = (*language, weight);
            }
        }
        best.0
    }

    pub(crate) fn tag(self) -> &'static str {
        self.0
    }

    /// What is said under this name.
    pub(crate) fn say(self, name: &str) -> &'static str {
        texts().get(self.0).and_then(|texts| texts.get(name)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_says_everything() {
        let english = &texts()["en"];
        for (language, text) in ALL {
            let said = &texts()[language.0];
            assert_eq!(said.len(), text.lines().count(), "{}: a line without a name, or a name twice", language.0);
            for (name, words) in english {
                let places = |words: &str| ["{0}", "{1}"].map(|place| words.contains(place));
                assert_eq!(said.get(name).map(|said| places(said)), Some(places(words)), "{} {name}", language.0);
            }
            assert_eq!(said.len(), english.len());
        }
    }

    #[test]
    fn the_browsers_first_choice_of_ours_is_taken() {
        for (accepted, expected) in [
            ("", "en"),
            ("de", "de"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("fi,ja;q=0.5", "ja"),
            ("fi", "en"),
            ("fr;q=0.5,es;q=0.9", "es"),
            ("*", "en"),
            ("fr;q=0", "en"),
            ("zh-Hans-CN, en;q=0.9", "zh"),
            ("fr;q=x", "en"),
        ] {
            let header = HeaderValue::from_static(accepted);
            assert_eq!(Language::preferred(Some(&header)).tag(), expected, "{accepted}");
        }
        assert_eq!(Language::preferred(None), Language::ENGLISH);
    }
}
