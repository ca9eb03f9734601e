"""Chinese: every noun with its measure word, 两 for two of anything, 有/没有 answering 有…吗."""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group

# kind: (noun, measure word)
NOUNS = {
    "apple": ("苹果", "个"),
    "banana": ("香蕉", "根"),
    "pear": ("梨", "个"),
    "lemon": ("柠檬", "个"),
    "cat": ("猫", "只"),
    "fish": ("鱼", "条"),
    "bird": ("鸟", "只"),
    "butterfly": ("蝴蝶", "只"),
    "car": ("汽车", "辆"),
    "bus": ("公交车", "辆"),
    "boat": ("船", "艘"),
    "airplane": ("飞机", "架"),
    "cup": ("杯子", "个"),
    "lamp": ("台灯", "盏"),
    "chair": ("椅子", "把"),
    "bottle": ("瓶子", "个"),
    "hat": ("帽子", "顶"),
    "shirt": ("衬衫", "件"),
    "shoe": ("鞋子", "只"),
    "sock": ("袜子", "只"),
    "tree": ("树", "棵"),
    "flower": ("花", "朵"),
    "cactus": ("仙人掌", "棵"),
    "leaf": ("叶子", "片"),
    "ball": ("球", "个"),
    "kite": ("风筝", "只"),
    "drum": ("鼓", "面"),
    "balloon": ("气球", "个"),
}
COLOUR_NAMES = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "white": "白色",
    "black": "黑色",
}
SIZE_NAMES = {"small": "小", "large": "大"}
NUMBERS = ("零", "一", "两", "三", "四", "五", "六")
PLACES = dict(zip(CELLS, ("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"), strict=True))
SCENERY = {
    "meadow": ("草地", "草地上"),
    "beach": ("沙滩", "沙滩上"),
    "snow": ("雪地", "雪地里"),
    "night": ("夜空", "夜空下"),
    "desert": ("沙漠", "沙漠里"),
    "room": ("房间", "房间里"),
}
CLASS_NAMES = {
    "fruit": "水果",
    "animal": "动物",
    "vehicle": "交通工具",
    "household": "家居用品",
    "clothing": "服饰",
    "plant": "植物",
    "toy": "玩具",
}
BESIDE = {"left": "左边", "right": "右边", "above": "上方", "below": "下方"}


class Chinese(Grammar):
    code = "zh"
    background_word = "背景"
    full_stop = "。"
    yes = "是的"
    no = "不是"

    def phrase(self, group: Group, *, size: bool = False) -> str:
        noun, measure = NOUNS[group.kind]
        how_large = SIZE_NAMES[group.size] if size else ""
        return f"{NUMBERS[group.count]}{measure}{COLOUR_NAMES[group.colour]}的{how_large}{noun}"

    def one(self, kind: str) -> str:
        noun, measure = NOUNS[kind]
        return f"一{measure}{noun}"

    def the(self, kind: str, count: int = 1) -> str:
        return NOUNS[kind][0]

    def missing(self, kind: str) -> str:
        return NOUNS[kind][0]

    def colour_of(self, group: Group, colour: str) -> str:
        return COLOUR_NAMES[colour]

    def size_of(self, group: Group, size: str) -> str:
        return SIZE_NAMES[size] + "的"

    def number_of(self, kind: str | None, count: int) -> str:
        return NUMBERS[count] + (NOUNS[kind][1] if kind else "个")

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def located(self, group: Group, cell: int) -> str:
        single = Group(group.kind, group.colour, group.size, (cell,))
        return f"{PLACES[CELLS[cell]]}有{self.phrase(single, size=True)}"

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{'、'.join(parts[:-1])}和{parts[-1]}"

    def report(self, groups: Sequence[Group], background: str) -> str:
        places = [self.located(group, cell) for group in groups for cell in group.cells]
        return f"{'，'.join(places)}。背景：{self.scenery(background)}。"

    def yes_no(self, category: str) -> tuple[str, str]:
        return ("有", "没有") if category in ("existence", "class_existence") else (self.yes, self.no)

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return f"{SCENERY[background][1]}有{self.listing(groups, size=True)}。"

    def object(self) -> Sequence[str]:
        return ("图片里有什么？", "你在图中看到了什么？")

    def describe(self) -> Sequence[str]:
        return ("描述一下这张图片。", "请简短描述这幅图。")

    def describe_places(self) -> str:
        return "描述这张图片，并说明每样东西的位置。"

    def which_present(self) -> str:
        return "图中有下面哪一个？"

    def absent(self) -> str:
        return "图中没有下面哪一个？"

    def colour(self, group: Group) -> str:
        return f"{NOUNS[group.kind][0]}是什么颜色的？"

    def count(self, kind: str) -> str:
        noun, measure = NOUNS[kind]
        return f"图中有几{measure}{noun}？"

    def total(self) -> str:
        return "图中一共有几个东西？"

    def position(self, kind: str) -> str:
        return f"{NOUNS[kind][0]}在哪里？"

    def at_position(self, cell: int) -> str:
        return f"图片{PLACES[CELLS[cell]]}有什么？"

    def with_colour(self, colour: str) -> str:
        return f"图中什么是{COLOUR_NAMES[colour]}的？"

    def size(self, group: Group) -> str:
        return f"{NOUNS[group.kind][0]}是大的还是小的？"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"哪个更{'大' if larger else '小'}，{NOUNS[first][0]}还是{NOUNS[second][0]}？"

    def existence(self, kind: str) -> str:
        return f"图中有{NOUNS[kind][0]}吗？"

    def class_existence(self, name: str) -> str:
        return f"图中有{CLASS_NAMES[name]}吗？"

    def background(self) -> str:
        return "图片的背景是什么？"

    def class_member(self, name: str) -> str:
        return f"图中有哪种{CLASS_NAMES[name]}？"

    def beside(self, direction: str, kind: str) -> str:
        return f"{NOUNS[kind][0]}的{BESIDE[direction]}是什么？"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        return f"{NOUNS[first][0]}在{NOUNS[second][0]}的{BESIDE[direction]}吗？"

    def is_colour(self, group: Group, colour: str) -> str:
        return f"{NOUNS[group.kind][0]}是{COLOUR_NAMES[colour]}的吗？"

    def same_colour(self, first: str, second: str) -> str:
        return f"{NOUNS[first][0]}和{NOUNS[second][0]}是同一种颜色吗？"

    def more(self, first: str, second: str) -> str:
        return f"{NOUNS[first][0]}是不是比{NOUNS[second][0]}多？"
