//! The formats of keys: their prefix, length, characters and randomness.
//!
//! The formats and minimum entropies are those of secret scanners:
//! <https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml>,
//! <https://github.com/trufflesecurity/trufflehog/tree/main/pkg/detectors>,
//! <https://github.com/mongodb/kingfisher/tree/main/crates/kingfisher-rules/data/rules> and
//! <https://github.com/Yelp/detect-secrets/blob/master/detect_secrets/plugins/high_entropy_strings.py>.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The characters that a key is made of.
#[derive(Clone, Copy, Debug)]
enum Alphabet {
    /// Letters of either case and digits.
    Alphanumeric,
    /// Base 32: upper-case letters and the digits from 2 to 7.
    Base32,
    /// Hexadecimal digits.
    Hex,
    /// URL-safe base 64: letters, digits, `-` and `_`.
    UrlSafe,
    /// The same, and the `.` between its parts.
    Dotted,
}

impl Alphabet {
    fn has(self, c: char) -> bool {
        match self {
            Self::Alphanumeric => c.is_ascii_alphanumeric(),
            Self::Base32 => c.is_ascii_uppercase() || matches!(c, '2'..='7'),
            Self::Hex => matches!(c, '0'..='9' | 'a'..='f'),
            Self::UrlSafe => c.is_ascii_alphanumeric() || matches!(c, '-' | '_'),
            Self::Dotted => Self::UrlSafe.has(c) || c == '.',
        }
    }

    /// Returns whether names of models use the same characters: words with separators.
    fn is_of_names(self) -> bool {
        matches!(self, Self::UrlSafe | Self::Dotted)
    }
}

/// One format of keys.
struct Form {
    /// The prefix before the random characters.
    begin: &'static str,
    /// The random characters.
    alphabet: Alphabet,
    /// How many of them there are.
    length: RangeInclusive<usize>,
    /// The minimum Shannon entropy, in bits per character.
    entropy: f64,
}

const fn form(begin: &'static str, alphabet: Alphabet, length: RangeInclusive<usize>, entropy: f64) -> Form {
    Form { begin, alphabet, length, entropy }
}

/// The formats of keys.
const FORMS: [Form; 35] = [
    // OpenAI, Anthropic, OpenRouter, DeepSeek, LiteLLM and others
    form("sk-", Alphabet::UrlSafe, 20..=250, 3.0),
    // Hugging Face
    form("hf_", Alphabet::Alphanumeric, 34..=34, 2.0),
    form("api_org_", Alphabet::Alphanumeric, 34..=34, 2.0),
    // NVIDIA
    form("nvapi-", Alphabet::UrlSafe, 64..=64, 3.5),
    // Groq, xAI, Perplexity, Replicate, Together, LangSmith
    form("gsk_", Alphabet::Alphanumeric, 52..=52, 3.5),
    form("xai-", Alphabet::UrlSafe, 70..=85, 3.5),
    form("pplx-", Alphabet::Alphanumeric, 48..=48, 3.5),
    form("r8_", Alphabet::UrlSafe, 37..=37, 3.0),
    form("tgp_v1_", Alphabet::UrlSafe, 43..=43, 3.5),
    form("lsv2_pt_", Alphabet::UrlSafe, 43..=43, 3.0),
    form("lsv2_sk_", Alphabet::UrlSafe, 43..=43, 3.0),
    // Google
    form("AIza", Alphabet::UrlSafe, 35..=35, 3.0),
    // AWS: long-term, session, bearer and context-specific keys
    form("AKIA", Alphabet::Base32, 16..=16, 2.5),
    form("ASIA", Alphabet::Base32, 16..=16, 2.5),
    form("ABIA", Alphabet::Base32, 16..=16, 2.5),
    form("ACCA", Alphabet::Base32, 16..=16, 2.5),
    // GitHub
    form("ghp_", Alphabet::Alphanumeric, 36..=36, 3.0),
    form("gho_", Alphabet::Alphanumeric, 36..=36, 3.0),
    form("ghu_", Alphabet::Alphanumeric, 36..=36, 3.0),
    form("ghs_", Alphabet::Alphanumeric, 36..=36, 3.0),
    form("ghr_", Alphabet::Alphanumeric, 36..=76, 3.0),
    form("github_pat_", Alphabet::UrlSafe, 82..=82, 3.0),
    // GitLab: the old format and the routable one
    form("glpat-", Alphabet::UrlSafe, 20..=20, 3.0),
    form("glpat-", Alphabet::Dotted, 37..=310, 3.0),
    // Stripe
    form("sk_live_", Alphabet::Alphanumeric, 20..=247, 2.0),
    form("sk_test_", Alphabet::Alphanumeric, 20..=247, 2.0),
    form("rk_live_", Alphabet::Alphanumeric, 20..=247, 2.0),
    // Registries of images and of packages
    form("dckr_pat_", Alphabet::UrlSafe, 27..=27, 3.0),
    form("npm_", Alphabet::Alphanumeric, 36..=36, 2.0),
    form("pypi-AgEIcHlwaS5vcmc", Alphabet::UrlSafe, 50..=1000, 3.0),
    // HashiCorp Vault, Databricks, DigitalOcean, Slack, Grafana
    form("hvs.", Alphabet::UrlSafe, 90..=120, 3.5),
    form("dapi", Alphabet::Hex, 32..=32, 3.0),
    form("dop_v1_", Alphabet::Hex, 64..=64, 3.0),
    form("xoxb-", Alphabet::UrlSafe, 40..=100, 3.0),
    form("glsa_", Alphabet::UrlSafe, 41..=41, 3.0),
];

/// Returns whether a value has the format of a key.
pub(super) fn is_key(value: &str) -> bool {
    FORMS.iter().any(|form| form.has(value))
}

impl Form {
    fn has(&self, value: &str) -> bool {
        value.strip_prefix(self.begin).is_some_and(|random| {
            self.length.contains(&random.len())
                && random.chars().all(|c| self.alphabet.has(c))
                && entropy(random) >= self.entropy
                && (!self.alphabet.is_of_names() || !is_name(random))
        })
    }
}

/// Returns the Shannon entropy of a text, in bits per character.
fn entropy(text: &str) -> f64 {
    let mut counts: BTreeMap<char, u32> = BTreeMap::new();
    text.chars().for_each(|c| *counts.entry(c).or_default() += 1);
    let length: f64 = counts.values().copied().map(f64::from).sum();
    let of = |count: u32| f64::from(count) / length;
    counts.into_values().map(|count| -of(count) * of(count).log2()).sum()
}

/// Returns whether a text may consist of words, such as `DeepSeek-R1-0528`. In random text, at least every fifth
/// character is of a different class than the one before it, not counting a small letter after a capital one; words are
/// less mixed.
fn is_name(text: &str) -> bool {
    let pairs = text.chars().zip(text.chars().skip(1));
    let is_change = |(one, next): &(char, char)| match (Class::of(*one), Class::of(*next)) {
        (Some(Class::Capital), Some(Class::Small)) => false,
        (Some(one), Some(next)) => one != next,
        _ => false,
    };
    pairs.filter(is_change).count() * 5 < text.len() - 1
}

/// The classes of characters.
#[derive(PartialEq, Eq)]
enum Class {
    /// A capital letter.
    Capital,
    /// A small letter.
    Small,
    /// A digit.
    Digit,
}

impl Class {
    fn of(c: char) -> Option<Self> {
        match c {
            'A'..='Z' => Some(Self::Capital),
            'a'..='z' => Some(Self::Small),
            '0'..='9' => Some(Self::Digit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "abcdefghijklmnopqrstuvwxyz";
    const CAPITAL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const DIGITS: &str = "0123456789";

    /// Patterns of keys: `{a34}` stands for 34 random letters and digits that are generated when the test runs, `l` for
    /// letters, `h` for hexadecimal digits, `b` for base 32, `u` for URL-safe base 64. There are no real keys here.
    const KEYS: [&str; 50] = [
        "hf_{l34}",
        "hf_{a34}",
        "api_org_{l34}",
        "nvapi-{u64}",
        "nvapi-{a64}",
        "sk-{a20}T3BlbkFJ{a20}",
        "sk-proj-{u74}T3BlbkFJ{u74}",
        "sk-proj-{a20}T3BlbkFJ{a20}",
        "sk-svcacct-{u74}T3BlbkFJ{u74}",
        "sk-svcacct-{u58}T3BlbkFJ{u58}",
        "sk-admin-{u58}T3BlbkFJ{u58}",
        "sk-None-{a20}T3BlbkFJ{a20}",
        "sk-ant-api03-{u93}AA",
        "sk-ant-admin01-{u93}AA",
        "sk-ant-oat01-{u93}AA",
        "sk-or-v1-{h64}",
        "sk-{h32}",
        "sk-{h48}",
        "sk-{a32}",
        "sk-{a48}",
        "sk-{u22}",
        "gsk_{a52}",
        "xai-{a80}",
        "pplx-{a48}",
        "r8_{a37}",
        "tgp_v1_{u43}",
        "lsv2_pt_{h32}_{h10}",
        "lsv2_sk_{h32}_{h10}",
        "AIza{u35}",
        "AKIA{b16}",
        "ASIA{b16}",
        "ABIA{b16}",
        "ACCA{b16}",
        "ghp_{a36}",
        "gho_{a36}",
        "ghu_{a36}",
        "ghs_{a36}",
        "ghr_{a36}",
        "github_pat_{a22}_{a59}",
        "glpat-{u20}",
        "glpat-{u27}.01.{a9}",
        "sk_live_{a24}",
        "sk_test_{a99}",
        "rk_live_{a24}",
        "dckr_pat_{u27}",
        "npm_{a36}",
        "pypi-AgEIcHlwaS5vcmc{u100}",
        "hvs.{u95}",
        "dapi{h32}",
        "glsa_{a32}_{h8}",
    ];

    /// Names of real models.
    const MODELS: [&str; 60] = [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "meta-llama/Llama-Guard-3-8B",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "mistralai/Mixtral-8x22B-v0.1",
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        "mistralai/Codestral-22B-v0.1",
        "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ",
        "Qwen/Qwen2.5-VL-72B-Instruct",
        "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
        "Qwen/QwQ-32B",
        "deepseek-ai/DeepSeek-R1",
        "deepseek-ai/DeepSeek-V3-0324",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B",
        "deepseek-ai/deepseek-coder-6.7b-instruct",
        "google/gemma-3-27b-it",
        "google/flan-t5-xxl",
        "google-bert/bert-base-uncased",
        "microsoft/Phi-3.5-mini-instruct",
        "microsoft/Phi-3-medium-128k-instruct",
        "microsoft/Florence-2-large",
        "openai/gpt-oss-120b",
        "openai/whisper-large-v3-turbo",
        "openai/clip-vit-large-patch14-336",
        "openai-community/gpt2",
        "tiiuae/Falcon3-10B-Instruct",
        "bigcode/starcoder2-15b",
        "bigscience/bloomz-7b1",
        "EleutherAI/gpt-neox-20b",
        "EleutherAI/pythia-1.4b-deduped",
        "HuggingFaceH4/zephyr-7b-beta",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "NousResearch/Hermes-3-Llama-3.1-8B",
        "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF",
        "nvidia/Llama-3_3-Nemotron-Super-49B-v1",
        "TheBloke/Llama-2-13B-chat-GPTQ",
        "TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ",
        "bartowski/Meta-Llama-3.1-8B-Instruct-Q4_K_M-GGUF",
        "neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w4a16",
        "RedHatAI/Qwen2.5-72B-Instruct-FP8-dynamic",
        "sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
        "BAAI/bge-large-en-v1.5",
        "BAAI/bge-reranker-v2-m3",
        "intfloat/multilingual-e5-large-instruct",
        "mixedbread-ai/mxbai-embed-large-v1",
        "nomic-ai/nomic-embed-text-v1.5",
        "jinaai/jina-embeddings-v2-base-en",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "black-forest-labs/FLUX.1-schnell",
        "CohereForAI/c4ai-command-r-plus-08-2024",
        "ibm-granite/granite-3.1-8b-instruct",
        "allenai/OLMo-2-1124-13B-Instruct",
        "facebook/wav2vec2-large-960h-lv60-self",
        "hf-internal-testing/tiny-random-LlamaForCausalLM",
    ];

    /// Generates random characters, the same for the same seed.
    struct Draw(u64);

    impl Draw {
        fn next(&mut self, from: &[char]) -> char {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            from[usize::try_from(self.0 >> 33).unwrap() % from.len()]
        }

        fn key(&mut self, pattern: &str) -> String {
            let mut parts = pattern.split(['{', '}']);
            let mut key = parts.next().unwrap().to_owned();
            while let (Some(drawn), Some(written)) = (parts.next(), parts.next()) {
                let alphabet = match &drawn[..1] {
                    "a" => [SMALL, CAPITAL, DIGITS].concat(),
                    "l" => [SMALL, CAPITAL].concat(),
                    "h" => [DIGITS, "abcdef"].concat(),
                    "b" => [CAPITAL, "234567"].concat(),
                    _ => [SMALL, CAPITAL, DIGITS, "-_"].concat(),
                };
                let from: Vec<char> = alphabet.chars().collect();
                (0..drawn[1..].parse().unwrap()).for_each(|_| key.push(self.next(&from)));
                key.push_str(written);
            }
            key
        }
    }

    #[test]
    fn detects_keys_by_their_format() {
        for pattern in KEYS {
            let missed = (1..=200).filter(|seed| !is_key(&Draw(*seed).key(pattern))).count();
            assert!(missed <= 10, "{missed} of 200 like {pattern}");
        }
    }

    #[test]
    fn does_not_mistake_model_names_for_keys() {
        for model in MODELS {
            let (_, bare) = model.split_once('/').unwrap();
            let dashed = |name: &str| name.replace(['/', '.'], "-");
            for name in [model.to_owned(), bare.to_owned(), dashed(model), dashed(bare)] {
                assert!(!is_key(&name), "{name}");
                for Form { begin, .. } in &FORMS {
                    assert!(!is_key(&format!("{begin}{name}")), "{begin}{name}");
                }
            }
        }
        for name in
            ["sk-learn-regression-model-v2", "sk-Learn-Iris-Classifier-V1-2024", "sk-no-key-required-for-local-use"]
        {
            assert!(!is_key(name), "{name}");
        }
    }

    #[test]
    fn does_not_mistake_placeholders_for_keys() {
        for text in [
            format!("hf_{}", "x".repeat(34)),
            format!("AKIA{}", "X".repeat(16)),
            format!("sk-{}", "x".repeat(48)),
            "sk-your-key-goes-right-here-12345".to_owned(),
            "sk-1234".to_owned(),
            "hf_home".to_owned(),
            "hf_transfer_enabled_for_all_downloads_now".to_owned(),
        ] {
            assert!(!is_key(&text), "{text}");
        }
    }
}
