"""Constants of Whisper: the rates of its features, its languages and its vocabulary.

Radford et al. 2022. Imports nothing.
"""

SAMPLE_RATE = 16_000  # Hz
FFT = 400  # samples in the window of a frame, 25 ms
HOP = 160  # samples from one frame to the next, 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
FRAMES_PER_POSITION = 2  # the stride of the encoder's second convolution
POSITIONS_PER_SECOND = FRAMES_PER_SECOND // FRAMES_PER_POSITION
WINDOW_SECONDS = 30  # of the published checkpoints

# Size of the vocabulary of English-only checkpoints; they have language tokens but do not use them.
ENGLISH_ONLY_VOCABULARY = 51_864
# Number of timestamp tokens, 0.00 s to 30.00 s: one for each position, and one for the end.
TIMESTAMPS = WINDOW_SECONDS * POSITIONS_PER_SECOND + 1

# Languages in the order of their tokens; `yue` came with large-v3.
WHISPER_LANGUAGES = tuple(
    """
    en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur
    hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si
    km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha
    ba jw su yue
    """.split()
)

# The English names of the languages, in the same order; an underscore stands for a space.
_NAMES = """
    English Chinese German Spanish Russian Korean French Japanese Portuguese Turkish Polish Catalan
    Dutch Arabic Swedish Italian Indonesian Hindi Finnish Vietnamese Hebrew Ukrainian Greek Malay
    Czech Romanian Danish Hungarian Tamil Norwegian Thai Urdu Croatian Bulgarian Lithuanian Latin
    Maori Malayalam Welsh Slovak Telugu Persian Latvian Bengali Serbian Azerbaijani Slovenian
    Kannada Estonian Macedonian Breton Basque Icelandic Armenian Nepali Mongolian Bosnian Kazakh
    Albanian Swahili Galician Marathi Punjabi Sinhala Khmer Shona Yoruba Somali Afrikaans Occitan
    Georgian Belarusian Tajik Sindhi Gujarati Amharic Yiddish Lao Uzbek Faroese Haitian_Creole
    Pashto Turkmen Nynorsk Maltese Sanskrit Luxembourgish Burmese Tibetan Tagalog Malagasy Assamese
    Tatar Hawaiian Lingala Hausa Bashkir Javanese Sundanese Cantonese
"""
LANGUAGE_NAMES = dict(
    zip(WHISPER_LANGUAGES, (name.replace("_", " ") for name in _NAMES.split()), strict=True)
)
