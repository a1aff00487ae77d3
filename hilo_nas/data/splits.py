"""Selection of the training images of a source and their classes, by the folders that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from hilo_nas.data.doubts import find_crossed, find_masks
from hilo_nas.data.formats import archive_stem
from hilo_nas.data.words import listed, own_words, role_of, words_of
from hilo_nas.errors import DataError
from hilo_nas.text.plurals import agree, count_of

__all__ = ["Choice", "choose_labelled", "choose_training", "own_words", "role_of"]

Folders = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Selection of the training images of a source."""

    classes: Mapping[int, str]
    """Class of each training image, by its index in the given list."""
    split: str
    """One sentence about how the training images were chosen. Empty if there was no choice."""
    class_level: str
    """One sentence about the folders that name the classes."""
    left_out: tuple[str, ...]
    """Warnings about parts that are left out although their names are not those of held-out splits."""
    depth: int = 0
    """Number of folder levels above the folders that name the classes."""


def choose_training(
    text: str, folders: Sequence[Folders], n_outer: Sequence[int], class_from: str | None = None
) -> Choice:
    """Returns the training images with their classes.

    A folder is a split, and not a class, if its name and its position agree. It must hold class folders. The folders
    next to it must also be splits, or have the names of its class folders. Splits inside class folders count too.

    Args:
        text: The source in the user's words.
        folders: Folders of each image, the outermost first.
        n_outer: Number of leading folders of each image that are never classes (an archive and the folders above it).
        class_from: See `ReadOptions`.

    Raises:
        DataError: There are no classes, only held-out splits, or splits without class folders; or two levels of folders
            may be the classes and `class_from` is None.
    """
    descent = _Descent(text, folders, n_outer)
    descent.run()
    if class_from == "last":
        descent.leave_held_within()
    elif class_from is None:
        descent.check_level()
    rest = descent.rest
    if class_from == "path":
        classes = {place: "/".join(parts) for place, parts in rest.items()}
    else:
        classes = {place: parts[-1 if class_from == "last" else 0] for place, parts in rest.items()}
    return Choice(
        classes=classes,
        split=descent.describe_split(),
        class_level=_describe_level(rest, descent.dropped, class_from),
        left_out=tuple(descent.warnings),
        depth=descent.depth,
    )


def choose_labelled(text: str, folders: Sequence[Folders], labels: Sequence[str]) -> Choice:
    """Returns the training images if labels come from elsewhere and folders only define splits.

    Raises:
        DataError: There are only held-out splits.
    """
    descent = _Descent(text, [(*parts, "") for parts in folders], [len(parts) for parts in folders])
    descent.run(only_outer=True)
    classes = {place: labels[place] for place in descent.rest}
    return Choice(classes=classes, split=descent.describe_split(), class_level="", left_out=tuple(descent.warnings))


def _describe_level(rest: Mapping[int, Folders], dropped: Sequence[str], class_from: str | None) -> str:
    depth = max((len(parts) for parts in rest.values()), default=1)
    below = f" below {'/'.join(dropped)}" if dropped else ""
    if depth == 1:
        return f"classes are the folders{below}"
    deepest = next("/".join(parts) for parts in rest.values() if len(parts) == depth)
    if class_from == "path":
        return f"classes are the whole folder paths{below}, such as {deepest}"
    if class_from == "last":
        return f"classes are the innermost folders{below}, such as {deepest.rpartition('/')[2]} of {deepest}"
    return (
        f"classes are the first folder level{below}; images lie {depth} levels deep, such as in {deepest} "
        "(set data.class_from=path to make each path a class, or data.class_from=last to use the innermost folders)"
    )


class _Descent:
    """Search from the folder of the source down to the level of the classes."""

    def __init__(self, text: str, folders: Sequence[Folders], n_outer: Sequence[int]) -> None:
        self.text = text.rstrip("/")
        self.rest = {place: parts for place, parts in enumerate(folders) if parts}
        """Remaining folders of each training image."""
        self.dropped: list[str] = []
        """Folders that contain all training images, from the top."""
        self.warnings: list[str] = []
        self._n_outer = n_outer
        self._depth = 0
        self._training: list[str] = []
        self._held: dict[str, int] = {}
        self._kept: list[str] = []
        self._is_chosen = role_of(self.text.rpartition("/")[2]) == "held"
        """True if the user named a held-out split, such as `data/test`, as the source. Then its images are read."""
        if loose := len(folders) - len(self.rest):
            verbs = agree(loose, "is in no class folder and is", "are in no class folder and are")
            self.warnings.append(f"{count_of(loose, 'image')} of {text} {verbs} left out")
        self._leave_masks()

    def run(self, only_outer: bool = False) -> None:
        steps = [self._pass_outer, *(() if only_outer else (self._unwrap, self._split, self._split_below))]
        while self.rest and any(step() for step in steps):
            pass
        if not self.rest and not self._held:
            raise DataError(
                f"the images of {self.text} must be in class folders. Move them into one subfolder per class, or "
                "define their classes in a function (--data FILE.py:FUNCTION)"
            )
        if not self.rest:
            held = ", ".join(self._held)
            path = "/".join([self.text, *self.dropped, next(iter(self._held))])
            # Data in an archive or on a hub has no path.
            has_path = not (only_outer or any(self._n_outer) or archive_stem(self.text))
            raise DataError(
                f"{self.text} must hold training images, but has only {held}, which a search never reads. To train on "
                f"it, name the split itself{f': {path}' if has_path else ''}."
            )

    @property
    def depth(self) -> int:
        """Number of levels above the current one."""
        return self._depth

    def check_level(self) -> None:
        """Checks if another level of folders may be the classes. If so, adds a warning.

        Raises:
            DataError: Another level is as likely.
        """
        if warning := find_crossed("/".join([self.text, *self.dropped]), self._children()):
            self.warnings.append(warning)

    def leave_held_within(self) -> None:
        """Leaves out held-out splits above the innermost folders, and those next to deeper folders."""
        is_deep = any(len(parts) > 1 for parts in self.rest.values())
        for place, parts in list(self.rest.items()):
            above = parts[:-1] or (parts if is_deep else ())
            if name := next((name for name in above if role_of(name) in _NEVER), None):
                self._held[name] = self._held.get(name, 0) + 1
                del self.rest[place]
        self._kept = []

    def _leave_masks(self) -> None:
        """Leaves out masks and labels that are stored as images, such as `masks/cat` next to `images/cat`."""
        siblings: dict[Folders, set[str]] = {}
        for parts in {*self.rest.values()}:
            for depth, name in enumerate(parts):
                siblings.setdefault(parts[:depth], set()).add(name)
        masks = {(*above, name) for above, names in siblings.items() for name in find_masks(names)}
        counts: dict[Folders, int] = {}
        for place, parts in list(self.rest.items()):
            if found := next((parts[:n] for n in range(1, len(parts) + 1) if parts[:n] in masks), None):
                counts[found] = counts.get(found, 0) + 1
                del self.rest[place]
        if counts:
            named = listed(["/".join(path) for path in sorted(counts)])
            where = f"{named} of {self.text}, next to a folder of images"
            self.warnings.append(f"left out as masks: {sum(counts.values()):,} in {where}")

    def describe_split(self) -> str:
        """Returns the sentence about training splits, splits left out, and folders that count as classes."""
        parts = [f"{name} ({count_of(count, 'image')})" for name, count in self._held.items()]
        out = f"{listed(parts)} {agree(len(parts), 'is', 'are')} left out" if parts else ""
        used = f"{listed(self._training)} {agree(len(self._training), 'is', 'are')} used for training"
        counts_as = ("counts as a class, not as a split", "count as classes, not as splits")
        doubt = f"{listed(self._kept)} {agree(len(self._kept), *counts_as)}"
        return "; ".join(
            sentence for sentence, holds in ((used, self._training), (out, parts), (doubt, self._kept)) if holds
        )

    def _children(self) -> dict[str, list[Folders]]:
        """Returns the folders of the current level, with the remaining folders of the images in each."""
        children: dict[str, list[Folders]] = {}
        for parts in self.rest.values():
            children.setdefault(parts[0], []).append(parts[1:])
        return children

    def _enter(self, names: set[str]) -> None:
        """Enters these folders of the current level and drops the others."""
        chosen = {place: parts[1:] for place, parts in self.rest.items() if parts[0] in names}
        self.rest = {place: parts for place, parts in chosen.items() if parts}
        if loose := len(chosen) - len(self.rest):
            where = listed(sorted(names)[:3])
            self.warnings.append(f"{count_of(loose, 'image')} of {self.text}/{where} in no class folder: left out")
        self._depth += 1
        if len(names) == 1:
            self.dropped += names

    def _sized(self, name: str, children: Mapping[str, Sequence[Folders]]) -> str:
        return f"{self.text}/{name} ({count_of(len(children[name]), 'image')})"

    def _leave_out(self, names: Sequence[str], children: Mapping[str, Sequence[Folders]]) -> None:
        for name in names:
            self._held[name] = self._held.get(name, 0) + len(children[name])

    def _pass_outer(self) -> bool:
        """Skips a level of archives that hold class folders. Their names are splits or shards, never classes.

        Images above the level are kept, unless the level has a training split.
        """
        above = {place: parts for place, parts in self.rest.items() if self._n_outer[place] <= self._depth}
        if len(above) == len(self.rest):
            return False
        dropped = [*self.dropped]
        self.rest = {place: parts for place, parts in self.rest.items() if place not in above}
        children = self._children()
        roles = {name: role_of(name) for name in children}
        train = [name for name in children if roles[name] == "train"]
        chosen = train or [name for name in children if roles[name] not in _NEVER]
        if not chosen and not above and self._is_chosen:
            chosen = [name for name in children if roles[name] == "held"]
        self._take(chosen, children, is_named=bool(train))
        if above and train:
            verbs = agree(len(above), "is next to its splits and is", "are next to its splits and are")
            self.warnings.append(f"{count_of(len(above), 'image')} of {self.text} {verbs} left out")
        elif above:
            self.rest = dict(sorted((self.rest | above).items()))
            self.dropped = dropped
        return True

    def _unwrap(self) -> bool:
        """Enters the only folder of a level, unless it holds the images directly."""
        children = self._children()
        if len(children) > 1 or not any(next(iter(children.values()))):
            return False
        (name,) = children
        if not self._training and not self._is_chosen and role_of(name) == "held":
            self._take([], children)
        elif not self._training and role_of(name) == "train":
            self._take([name], children, is_named=True)
        else:
            self._enter({name})
        return True

    def _split(self) -> bool:
        """Enters the training splits of a level with splits."""
        children = self._children()
        by_role: dict[str | None, list[str]] = {}
        for name in children:
            by_role.setdefault(role_of(name, [*children]), []).append(name)
        train, held, aside, plain = (by_role.get(role, []) for role in ("train", "held", "aside", "plain"))
        others = [*by_role.get(None, []), *plain]
        deep = {name for name in children if any(children[name])}
        if self._are_classes(train, held, children):
            self._kept = [*train, *held]
            return False
        if train and not others:
            if not deep & {*train}:
                raise DataError(
                    f"the splits of {self.text} must have one subfolder per class, but hold images directly"
                )
            self._take(train, children, is_named=True)
        elif train and deep & {*train} and (held or self._outweighs(train, others, children)):
            self._take(train, children, is_named=True)
        elif held and not others and not train:
            self._take(held if self._is_chosen and deep & {*held} else [], children)
        elif held and not train and any(self._is_part(name, others, plain, children) for name in held):
            parts = [name for name in [*held, *aside] if self._is_part(name, others, plain, children)]
            self.warnings += [f"{self.text}/{name} looks like a held-out split and is never read" for name in parts]
            self._leave_out(parts, children)
            self.rest = {place: path for place, path in self.rest.items() if path[0] not in parts}
        else:
            self._kept = [*train, *held]
            return False
        return True

    def _are_classes(self, train: list[str], held: list[str], children: Mapping[str, Sequence[Folders]]) -> bool:
        """Returns True if folders with names like splits are classes because of their other words.

        For example, `freight train` and `city train` are classes. They are not if they hold class folders of the same
        names, or if some are for training and others for testing.
        """
        names = [*train, *held]
        own = [own_words(name) for name in names]
        if len(own) < 2 or not all(own) or len({*own}) < len(own):
            return False
        below = [{path[0] for path in children[name] if path} for name in names]
        if train and held:
            return not any(below)
        return not any(words_of(name) for name in set.intersection(*below))

    def _outweighs(self, train: list[str], others: list[str], children: Mapping[str, Sequence[Folders]]) -> bool:
        """Returns True if a folder with the name of a training split is no class, although others have no such name."""
        below = {path[0] for name in train for path in children[name] if path}
        if len(below) < 2:
            return False
        if below & {*others} or all(role_of(name) == "plain" for name in others):
            return True
        if self._are_twins(train, others, children):
            return True
        beside = [path for name in others for path in children[name]]
        return not any(beside) and sum(len(children[name]) for name in train) > len(beside)

    def _are_twins(self, named: list[str], others: list[str], children: Mapping[str, Sequence[Folders]]) -> bool:
        """Returns True for two folders with the same class folders if only one has the name of a split: train, unseen.

        Numbers do not count as class folders: `bus/2021`, `train/2021`.
        """
        if len(named) != 1 or len(others) != 1 or own_words(named[0]):
            return False
        one, other = ({path[0] for path in children[name] if path} for name in (named[0], others[0]))
        return one == other and len([name for name in one if words_of(name)]) > 1

    def _is_part(
        self, name: str, others: list[str], plain: list[str], children: Mapping[str, Sequence[Folders]]
    ) -> bool:
        """Returns True if a folder with the name of a held-out split, next to classes, is not a class."""
        paths = children[name]
        if self._are_twins([name], others, children) or self._is_alike(name, others, children):
            return True
        below = {path[0] for path in paths if path}
        if not below:
            return others == plain and any(any(children[other]) for other in others)
        is_deeper = all(paths) and not any(path for other in others for path in children[other])
        return bool(below & {*others}) or is_deeper or others == plain

    def _is_alike(self, name: str, others: list[str], children: Mapping[str, Sequence[Folders]]) -> bool:
        """Returns True if all others hold the class folders of this one (left, right, test) or are numbered (fold1)."""
        inner = [{path[0] for path in children[other] if path} for other in others]
        below = {path[0] for path in children[name] if path}
        if not below or not all(len(names) > 1 and below <= names for names in inner):
            return False
        is_named = not own_words(name) and len([folder for folder in below if words_of(folder)]) > 1
        are_numbered = all(any(sign.isdigit() for sign in other) for other in others)
        return is_named or (are_numbered and len({tuple(words_of(other)) for other in others}) == 1)

    def _split_below(self) -> bool:
        """Looks for splits inside the folders of this level: those of one data set, or those of each class."""
        children = self._children()
        inner = {name: {path[0] if path else "" for path in paths} for name, paths in children.items()}
        roles = {name: {role_of(folder) for folder in folders} for name, folders in inner.items()}
        # A folder with a training and a held-out split is enough. Without a held-out split, it must hold nothing else.
        holders = {
            name
            for name in children
            if roles[name] >= {"train", "held"} or ("train" in roles[name] and roles[name] <= {"train", *_NEVER})
        }
        if not holders:
            return False
        classes = {p[1] for n in holders for p in children[n] if len(p) > 1 and role_of(p[0]) == "train"}
        if len(classes) > 1 and (len(holders) == 1 or holders == {*children}):
            lost = [name for name in children if name not in holders]
            self.warnings += [f"{self._sized(name, children)} is left out" for name in lost]
            self._enter(holders)
            return True
        is_split = len({name for holder in holders for name in inner[holder]}) > 1
        # A single class may hold splits only if it holds both.
        if not is_split or (len(holders) == 1 and len(children) > 1 and not roles[next(iter(holders))] >= _BOTH):
            return False
        self._split_classes(holders)
        return False

    def _split_classes(self, holders: set[str]) -> None:
        """Keeps the training split of each class."""
        kept: dict[int, Folders] = {}
        for place, parts in self.rest.items():
            if parts[0] not in holders:
                kept[place] = parts
            elif role_of(parts[1]) == "train":
                kept[place] = (parts[0], *parts[2:])
                if parts[1] not in self._training:
                    self._training.append(parts[1])
            else:
                self._held[parts[1]] = self._held.get(parts[1], 0) + 1
        self.rest = kept

    def _take(self, chosen: list[str], children: Mapping[str, Sequence[Folders]], is_named: bool = False) -> None:
        """Enters the chosen splits and counts the others as left out."""
        lost = [name for name in children if name not in chosen]
        self._leave_out(lost, children)
        if chosen:
            odd = [name for name in lost if role_of(name, [*children]) in (None, "plain")]
            self.warnings += [f"{self._sized(name, children)} is not a split: left out" for name in odd]
        if is_named:
            self._training = chosen
        self._enter({*chosen})


_NEVER = ("held", "aside")
_BOTH = frozenset({"train", "held"})
