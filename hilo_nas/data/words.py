"""Words for splits in the names of folders and archives, in English and other languages."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence

__all__ = ["listed", "own_words", "role_of", "words_of"]

_ROLES = {
    "train": "train training trn trainset trainingset trainval traindata trainingdata labeled labelled "
    "trainings trainingsdaten trainingsdatensatz trainingsset entrenamiento entreno entrainement entraînement "
    "apprentissage treino treinamento addestramento trening treningowy обучение обучающая тренировочная 训练 训练集 "
    "训练数据 訓練 訓練データ 学習 学習用 学習データ 훈련 학습",
    "held": "test testing tst testset testingset testdata val valid validation validate validating valset validset "
    "validationset valdata validationdata eval evaluation evaluate evalset dev devset devel development holdout "
    "heldout unseen testdaten testdatensatz validierung validierungsdaten validierungsdatensatz prueba pruebas "
    "validacion validación evaluacion evaluación évaluation teste testes validacao validação avaliacao avaliação "
    "prova validazione testowy walidacja validatie тест тестовая валидация 测试 测试集 测试数据 验证 验证集 "
    "验证数据 テスト テストデータ 検証 検証データ 評価 테스트 검증 평가",
    "aside": "unlabeled unlabelled unlabel extra pred prediction predictions predict inference submission "
    "query gallery",
    "plain": "image images img imgs photo photos picture pictures pics data dataset raw original originals full all "
    "main base set sets split splits part parts subset folder dir daten datensatz bilder datos imagenes imágenes "
    "donnees données dados imagens immagini dati 图片 图像 数据 数据集 画像 データ",
}
_ROLE_OF_WORD = {word: role for role, words in _ROLES.items() for word in words.split()}
_SHORT = {"tr": "train", "te": "held", "ts": "held", "va": "held"}
"""Words that name splits only if all folders next to each other have such names. Elsewhere they may be languages, for
example."""


def role_of(name: str, siblings: Sequence[str] = ()) -> str | None:
    """Returns the role of a folder by its name: `train`, `held` (held-out), `aside` (other), `plain`, or None.

    Words are separated by punctuation, digits and capitals: `train2017`, `seg_test`, `TrainImages`, `split=val`. Words
    such as `images` or `data` are `plain`: they say nothing about a split. A name is `plain` if all its words are.

    Args:
        name: The name.
        siblings: Names of all folders of the same level, which determine the role of `tr` and `te`.
    """
    if "tr" in (lower := {sibling.lower() for sibling in siblings}) and len(lower) > 1 and lower <= {*_SHORT}:
        return _SHORT[name.lower()]
    words = words_of(name)
    roles = {_ROLE_OF_WORD.get(word) for word in words}
    if {("hold", "out"), ("held", "out")} & {*itertools.pairwise(words)}:
        roles.add("held")
    found = next((role for role in ("train", "held", "aside") if role in roles), None)
    return found or ("plain" if roles == {"plain"} else None)


def words_of(name: str) -> list[str]:
    """Returns the words of a name, in lower case and composed form (NFC)."""
    composed = unicodedata.normalize("NFC", name)
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", composed)
    return [word.lower() for word in re.findall(r"[^\W\d_]+", separated)]


def own_words(name: str) -> frozenset[str]:
    """Returns the words of a name that do not name a split: `pets` for `pets-train-0`."""
    return frozenset(word for word in words_of(name) if word not in _ROLE_OF_WORD)


def listed(names: Sequence[str]) -> str:
    """Returns names as an English list. If there are more than five, only the first four are listed."""
    shown = [*names[:4], f"{len(names) - 4:,} more"] if len(names) > 5 else list(names)
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
