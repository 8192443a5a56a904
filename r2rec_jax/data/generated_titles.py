"""Titles of the generated catalogue: short common nouns, none of them a genre.

Each is one word of 4-7 letters, so that a small byte-pair vocabulary encodes a title as one or two tokens.
The bundled tiny model is pretrained on this catalogue. Changing a word, the order or the length requires
pretraining it again.
"""

_WORDS = """
Acorn Almond Amber Anchor Anvil Apple Apron Arrow Aspen Atlas Autumn Badger Balloon Bamboo Banjo
Barrel Basket Beacon Beaver Beetle Bishop Blanket Blossom Bonfire Bottle Boulder Bramble Bridge
Bronze Bucket Buffalo Butter Button Cabin Cactus Camel Canal Candle Cannon Canoe Canyon Captain
Caravan Carpet Castle Cedar Cellar Chapel Cherry Chimney Circus Citadel Clover Coast Cobalt Coffee
Comet Compass Copper Coral Cotton Cougar Coyote Cradle Crater Cricket Crown Crystal Curtain Cypress
Dagger Dahlia Daisy Desert Diamond Dolphin Donkey Dragon Drum Dune Eagle Earth Ember Emerald Engine
Falcon Feather Fern Ferry Fiddle Field Flame Flute Forest Fossil Garden Garnet Gazelle Geyser Ginger
Glacier Goblet Granite Grove Guitar Hammer Harbor Harvest Hazel Helmet Heron Hollow Honey Horizon
Hornet Iceberg Island Ivory Jackal Jacket Jasmine Jasper Jewel Jungle Juniper Kettle Kitten Ladder
Lagoon Lantern Laurel Lemon Leopard Lily Lizard Lobster Locket Lotus Magnet Magpie Mango Mantle
Maple Marble Market Meadow Melon Meteor Mirror Mitten Monk Monsoon Moth Museum Mustang Nectar Needle
Nettle Nutmeg Oasis Ocean Olive Onion Opal Orange Orchard Orchid Otter Oyster Paddle Palace Panther
Parade Parrot Peach Pebble Pelican Pepper Piano Pigeon Pillow Pilot Pirate Planet Plateau Pocket
Pony Poplar Prairie Pumpkin Quarry Quartz Quilt Rabbit Raven Ribbon River Robin Rocket Rooster
Saddle Saffron Salmon Scarf Shadow Shovel Silver Spider Squire Stable Statue Summit Temple Thistle
Thunder Tiger Timber Torch Tower Tulip Tunnel Turtle Valley Velvet Violin Volcano Walnut Willow
Window Winter Wizard Zephyr
"""

TITLES: tuple[str, ...] = tuple(_WORDS.split())
