"""Boards that networks are put on: flash and RAM by their data sheets, and whether a file fits.

A board is more than its chip: where a chip has no flash of its own, that of the board counts. RAM of a chip often comes
in blocks at different addresses, and an arena has to lie in one of them. Memory that is slower by an order of magnitude
(PSRAM, SDRAM) is not counted.
"""

from dataclasses import dataclass

from lowbit.errors import OutputError, did_you_mean

KIB, MIB = 1 << 10, 1 << 20
# Room that is left for the program around a network: interpreter, kernels and drivers; stack, heap and buffers.
PROGRAM_FLASH, PROGRAM_RAM = 100 * KIB, 24 * KIB


@dataclass(frozen=True)
class Board:
    """One row.

    Attributes:
        title: what it is sold as.
        chip: with its processor.
        flash: bytes for program and model.
        ram: bytes of all fast RAM.
        block: bytes of its largest block.
        source: data sheets.
    """

    title: str
    chip: str
    flash: int
    ram: int
    block: int
    source: str


# fmt: off
BOARDS = {
    "nano33ble": Board("Arduino Nano 33 BLE Sense", "nRF52840, Cortex-M4F", MIB, 256 * KIB, 256 * KIB,
                       "Nordic nRF52840 Product Specification, memory"),
    "nicla-vision": Board("Arduino Nicla Vision", "STM32H747, Cortex-M7", 2 * MIB, MIB, 512 * KIB,
                          "ST DS12930 (STM32H747xI): 2 MB of flash, 1 MB of RAM, AXI SRAM of 512 KB"),
    "portenta-h7": Board("Arduino Portenta H7", "STM32H747, Cortex-M7", 2 * MIB, MIB, 512 * KIB,
                         "ST DS12930 (STM32H747xI)"),
    "stm32h747i-disco": Board("STM32H747I-DISCO", "STM32H747, Cortex-M7", 2 * MIB, MIB, 512 * KIB,
                              "ST DS12930 (STM32H747xI)"),
    "stm32f746g-disco": Board("STM32F746G-DISCO", "STM32F746, Cortex-M7", MIB, 320 * KIB, 320 * KIB,
                              "ST DS10916 (STM32F746xx): 1 MB of flash, 320 KB of system SRAM"),
    "stm32n6570-dk": Board("STM32N6570-DK", "STM32N657, Cortex-M55", 128 * MIB, 4200 * KIB, 4200 * KIB,
                           "ST DS14791 (STM32N657xx): 4.2 MB of contiguous RAM, no flash; the board's octo-SPI flash "
                           "has 1 Gbit (UM3300)"),
    "pico": Board("Raspberry Pi Pico", "RP2040, Cortex-M0+", 2 * MIB, 264 * KIB, 264 * KIB,
                  "RP2040 Datasheet: 264 kB of SRAM; Raspberry Pi Pico Datasheet: 2 MB of flash"),
    "pico2": Board("Raspberry Pi Pico 2", "RP2350, Cortex-M33", 4 * MIB, 520 * KIB, 520 * KIB,
                   "RP2350 Datasheet: 520 kB of SRAM; Raspberry Pi Pico 2 Datasheet: 4 MB of flash"),
    "esp32": Board("ESP32-DevKitC", "ESP32, Xtensa LX6", 4 * MIB, 520 * KIB, 320 * KIB,
                   "ESP32 Series Datasheet: 520 KB of SRAM, of which 320 KB hold data; 4 MB of flash in its modules"),
    "esp32-s3": Board("ESP32-S3-DevKitC-1", "ESP32-S3, Xtensa LX7", 8 * MIB, 512 * KIB, 416 * KIB,
                      "ESP32-S3 Series Datasheet: 512 KB of SRAM; module N8: 8 MB of flash"),
    "nrf5340-dk": Board("nRF5340 DK", "nRF5340, Cortex-M33", MIB, 512 * KIB, 512 * KIB,
                        "Nordic nRF5340 Product Specification, application core"),
    "nrf54l15-dk": Board("nRF54L15 DK", "nRF54L15, Cortex-M33", 1524 * KIB, 256 * KIB, 256 * KIB,
                         "Nordic nRF54L15 Datasheet: 1524 KB of RRAM, 256 KB of RAM"),
    "apollo4-plus-evb": Board("Apollo4 Plus EVB", "Apollo4 Plus, Cortex-M4F", 2 * MIB, 2816 * KIB, 2 * MIB,
                              "Ambiq Apollo4 Plus SoC Datasheet: 2 MB of MRAM, 2.75 MB of SRAM"),
    "alif-e7": Board("Ensemble E7 DevKit", "Alif E7, Cortex-M55", 5632 * KIB, 13824 * KIB, 4 * MIB,
                     "Alif Ensemble E7 Datasheet: 5.5 MB of MRAM, 13.5 MB of SRAM"),
    "teensy41": Board("Teensy 4.1", "i.MX RT1062, Cortex-M7", 7936 * KIB, MIB, 512 * KIB,
                      "NXP IMXRT1060CEC: 1 MB of RAM; PJRC's page of the board: 7936 KB of flash"),
    "xg24-dk2601b": Board("xG24 Dev Kit", "EFR32MG24, Cortex-M33", 1536 * KIB, 256 * KIB, 256 * KIB,
                          "Silicon Labs EFR32MG24 Data Sheet: up to 1536 kB of flash, 256 kB of RAM"),
}
# fmt: on


@dataclass(frozen=True)
class BoardFit:
    """Whether a network fits on a board, with room for the program around it.

    Attributes:
        name: key of the board in `BOARDS`.
        board: its row.
        flash_left: bytes of flash that model and program leave; negative if they do not fit.
        ram_left: bytes of RAM that arena and program leave; negative if they do not fit, or if no block of its RAM
            holds the arena.
    """

    name: str
    board: Board
    flash_left: int
    ram_left: int

    @property
    def fits(self) -> bool:
        """Whether both do."""
        return self.flash_left >= 0 and self.ram_left >= 0


def board_fit(name: str, *, flash: int, arena: int) -> BoardFit:
    """Whether a model of `flash` bytes with an arena of `arena` bytes fits on a board.

    Raises:
        OutputError: no such board.
    """
    if name not in BOARDS:
        raise OutputError(
            f"no board is called '{name}'.", remedy=f"{did_you_mean(name, BOARDS)}Choose one of: {', '.join(BOARDS)}."
        )
    board = BOARDS[name]
    ram_left = min(board.ram - PROGRAM_RAM, board.block) - arena
    return BoardFit(name, board, board.flash - PROGRAM_FLASH - flash, ram_left)
