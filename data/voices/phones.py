"""One phone alphabet (39 ARPAbet phones and `SIL`) over what the engines use."""

ARPABET = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW "
    "V W Y Z ZH".split()
)
SILENCE = "SIL"
PHONES = (SILENCE, *ARPABET)

# Festival's and flite's "radio" phone set: ARPAbet in small letters, plus these.
_RADIO = {
    "ax": "AH", "axr": "ER", "dx": "D", "el": "L", "em": "M", "en": "N", "hv": "HH", "nx": "N",
    "pau": SILENCE, "h#": SILENCE, "brth": SILENCE,
}  # fmt: skip

# International Phonetic Alphabet as espeak-ng writes English, longest match first.
_IPA = {
    "aɪə": "AY", "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY",
    "tʃ": "CH", "dʒ": "JH", "ɜː": "ER", "ɪə": "IY", "iə": "IY", "eə": "EH", "ʊə": "UH",
    "ɔː": "AO", "oː": "AO", "ɑː": "AA", "iː": "IY", "uː": "UW",
    "ɚ": "ER", "ɜ": "ER", "ɐ": "AH", "ʌ": "AH", "ə": "AH", "ɪ": "IH", "ᵻ": "IH", "i": "IY",
    "ʊ": "UH", "u": "UW", "ɛ": "EH", "e": "EH", "æ": "AE", "a": "AE", "ɑ": "AA", "ɒ": "AA",
    "ɔ": "AO", "o": "OW", "ɹ": "R", "r": "R", "ɾ": "D", "l": "L", "m": "M", "n": "N", "ŋ": "NG",
    "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "ɡ": "G", "f": "F", "v": "V", "θ": "TH",
    "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "w": "W", "j": "Y",
    "ʔ": "T", "x": "K",
}  # fmt: skip


def from_radio(symbol: str) -> str:
    """Festival or flite phone -> ARPAbet or `SIL`; raises KeyError on an unknown one."""
    if symbol in _RADIO:
        return _RADIO[symbol]
    upper = symbol.upper()
    if upper not in ARPABET:
        raise KeyError(f"phone {symbol!r} is neither ARPAbet nor in the radio set's extras")
    return upper


def from_ipa(text: str) -> list[tuple[str, int, int]]:
    """IPA text -> (phone, first character, one past the last), longest match first.

    Stress and length marks belong to the phone before them; other characters (spaces,
    punctuation) are `SIL`.
    """
    found: list[tuple[str, int, int]] = []
    position = 0
    while position < len(text):
        longest = min(3, len(text) - position)
        size = next((n for n in range(longest, 0, -1) if text[position : position + n] in _IPA), 0)
        if size:
            found.append((_IPA[text[position : position + size]], position, position + size))
        elif text[position] in "ˈˌ" or not found or text[position] not in "ːʲ̩":
            found.append((SILENCE, position, position + 1))
        else:
            symbol, start, _ = found[-1]
            found[-1] = (symbol, start, position + 1)
        position += size or 1
    return found
