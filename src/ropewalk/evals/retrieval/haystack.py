"""The prose that facts are hidden in, and the things that facts are about; written for ropewalk.

in   nothing
out  sentences without a number or a name, so that none can be taken for a fact; things and names for facts
"""

from __future__ import annotations

HEADER = "These are the notes of a harbour. Some of them state facts; keep them in mind, for one is asked at the end."

SENTENCES = (
    "The tide was late this morning and the boats lay aslant on the mud.",
    "A cart went by with barrels, and nobody looked up.",
    "Rain came over the hill before noon and left again without a word.",
    "The old man on the bench mends nets when his hands allow it.",
    "Two children ran along the quay and counted gulls aloud.",
    "There is fresh paint on the door, and somebody has already touched it.",
    "The wind turned north in the afternoon, which pleased the dyers.",
    "A letter lay on the step for a week and then was gone.",
    "They have put new rope on the crane, thicker than before.",
    "The baker opened late and sold out early, as on most days.",
    "Fog stood in the street until the lamps were lit.",
    "Somebody plays the fiddle behind the wall, always the same tune.",
    "The dog sleeps in the sun and moves when the shadow comes.",
    "They speak of building a second pier, but they spoke of it last year too.",
    "A ship passed far out and did not call.",
    "The bells were heard from the other side of the bay.",
    "Salt has eaten the hinges, and the gate hangs by one of them.",
    "The clerk dropped his papers in the wind and laughed.",
    "Apples came in with the morning cart, small and very red.",
    "The weaver says that this wool is better than the last.",
    "At low water one can walk to the rocks and back with dry feet.",
    "The roof of the shed leaks where it has always leaked.",
    "They unloaded timber all day and stacked it by length.",
    "A lamp was left burning in the loft, and no harm came of it.",
    "The cook threw the peelings to the hens and shut the window.",
    "It is said that the winter will be mild, on no good ground.",
    "The pilot came back tired and went straight to bed.",
    "Swallows nest under the arch again, as they do each spring.",
    "Nobody remembers who planted the pear tree by the well.",
    "The boys carved a whistle and blew it until supper.",
    "Tar was boiled in the yard, and one could smell it in the chapel.",
    "The river is low, and the mill stands still.",
    "A stranger asked the way and was given three answers.",
    "The ropemaker walks backwards for a living and says he sees more so.",
    "They hung the washing out and took it in again within the hour.",
    "Late in the evening the sea was so calm that it showed the stars.",
    "The goat got into the garden, and the beans are gone.",
    "Frost drew ferns on the glass, finer than any lace.",
    "The schoolmaster lost his hat and found it on the statue.",
    "An owl calls from the barn when the moon is up.",
)

THINGS = (
    "mill chapel tower bakery granary stable forge cellar boathouse customs-house lighthouse dairy brewery sawmill "
    "library infirmary archive armoury orchard-shed tannery"
).split()

NAMES = (
    "Alder Birch Cedar Dogwood Elder Fir Gorse Hazel Ivy Juniper Larch Maple Nettle Oak Pine Quince Rowan Spruce "
    "Thorn Willow Yew"
).split()
